//! A simple feature pyramid (ViTDet, Li et al. 2022, section 3; EoMT paper, section 3.2): maps at 1/4, 1/8 and 1/32 of the input from the ViT's
//! at 1/16, each by itself. A step is a transposed convolution, or downwards a convolution, of 2x2 with stride 2, GELU, depthwise 3x3, layer norm.

use super::backend::{Activation, Backend, Conv, Init, Map, Norm, Weight};
use super::{EPS, Sizes};

/// Epsilon of the norms in the doublings, that of transformers' EomtLayerNorm2d.
const SCALE_EPS: f32 = 1e-6;

/// At 1/4, 1/8, 1/16, 1/32.
pub(super) fn four<B: Backend>(backend: &mut B, sizes: &Sizes, map: &Map<B::Value>) -> Result<[Map<B::Value>; 4], B::Error> {
    let quarter = quarter(backend, sizes, map)?;
    let eighth = double(backend, sizes, map, "pyramid.eighth.0")?;
    let last = halve(backend, sizes, map, "pyramid.last.0")?;
    Ok([quarter, eighth, map.clone(), last])
}

/// At 1/4.
pub(super) fn quarter<B: Backend>(backend: &mut B, sizes: &Sizes, map: &Map<B::Value>) -> Result<Map<B::Value>, B::Error> {
    let doubled = double(backend, sizes, map, "pyramid.quarter.0")?;
    double(backend, sizes, &doubled, "pyramid.quarter.1")
}

fn double<B: Backend>(backend: &mut B, sizes: &Sizes, map: &Map<B::Value>, name: &str) -> Result<Map<B::Value>, B::Error> {
    let d = sizes.hidden;
    let weight = Weight::new(format!("{name}.conv1.weight"), &[d, d, 2, 2], Init::fan_in(4 * d));
    let bias = Weight::new(format!("{name}.conv1.bias"), &[d], Init::Constant(0.0));
    let up = backend.transposed_conv(map, &weight, &bias)?;
    smooth(backend, sizes, &up, name)
}

fn halve<B: Backend>(backend: &mut B, sizes: &Sizes, map: &Map<B::Value>, name: &str) -> Result<Map<B::Value>, B::Error> {
    let d = sizes.hidden;
    let conv = Conv {
        weight: Weight::new(format!("{name}.conv1.weight"), &[d, d, 2, 2], Init::fan_in(4 * d)),
        bias: Some(Weight::new(format!("{name}.conv1.bias"), &[d], Init::Constant(0.0))),
        norm: None,
        stride: 2,
        padding: 0,
    };
    let down = backend.conv(map, &conv)?;
    smooth(backend, sizes, &down, name)
}

/// GELU, depthwise convolution, norm.
fn smooth<B: Backend>(backend: &mut B, sizes: &Sizes, map: &Map<B::Value>, name: &str) -> Result<Map<B::Value>, B::Error> {
    let d = sizes.hidden;
    let active = backend.activate(&map.value, Activation::Gelu)?;
    let taps = Weight::new(format!("{name}.conv2.weight"), &[d, 1, 3, 3], Init::fan_in(9));
    let mixed = backend.depthwise(&map.with(active), &taps, None)?;
    backend.map_norm(&mixed, &Norm::new(&format!("{name}.layernorm2d"), d, SCALE_EPS))
}

/// From the map at 1/4 to as many channels as a mask embedding has, where no pixel decoder does it.
pub(super) fn mask_features<B: Backend>(backend: &mut B, sizes: &Sizes, map: &Map<B::Value>) -> Result<Map<B::Value>, B::Error> {
    backend.conv(map, &projection("mask_projection", map.channels, sizes.decoder_width))
}

/// A convolution of 1x1 with bias.
pub(super) fn projection(name: &str, from: usize, to: usize) -> Conv {
    Conv {
        weight: Weight::new(format!("{name}.weight"), &[to, from, 1, 1], Init::xavier(from, to)),
        bias: Some(Weight::new(format!("{name}.bias"), &[to], Init::Constant(0.0))),
        norm: None,
        stride: 1,
        padding: 0,
    }
}

/// A group norm of Mask2Former's.
pub(super) fn group_norm<B: Backend>(backend: &mut B, x: &Map<B::Value>, name: &str) -> Result<Map<B::Value>, B::Error> {
    backend.group_norm(x, &Norm::new(name, x.channels, EPS), super::GROUPS)
}
