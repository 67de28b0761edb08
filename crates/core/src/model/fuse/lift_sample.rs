//! GridSample as deformable attention uses it: bilinear, zeros outside, corners not aligned.

use tract_onnx::prelude::{TypedModel, TypedNode};
use tract_onnx::tract_core::ops::nn::grid_sample::{GridSample, InterpolationMode, PaddingMode};

use super::rule::{Context, Patch, replace};
use super::view::shape;
use crate::kernels::grid_sample::MapShape;
use crate::model::ops::{GridSampleSpec, Spec};

/// The general operator computes one value at a time.
pub(super) fn grid_sample(context: &Context, model: &TypedModel, node: &TypedNode, name: &str, op: &GridSample) -> Patch {
    let ours = op.mode == InterpolationMode::Bilinear && op.padding_mode == PaddingMode::Zeros && !op.align_corners;
    let (map, grid) = (shape(model, node.inputs[0]), shape(model, node.inputs[1]));
    let ([images, channels, height, width], [_, rows, columns, 2]) = (&map[..], &grid[..]) else { return Ok(None) };
    if !ours || map.contains(&0) || grid.contains(&0) {
        return Ok(None);
    }
    let shape = MapShape { channels: *channels, height: *height, width: *width };
    let spec = Spec::GridSample(GridSampleSpec { images: *images, shape, places: rows * columns });
    replace(context, model, name, spec, &node.inputs, node.id.into())
}
