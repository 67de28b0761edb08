//! Networks with Mask2Former's decoder ([`crate::chain`]) as ONNX.
//!
//! The blocks of the ViT have the nodes that EoMT's have, so that the same fusions find them. Exact folds: attention's 1/sqrt(d) into the
//! query projection, LayerScale and the injectors' γ into the projection before them, recorded batch norms into convolutions.
//! Refuses: int8 and bf16, whose roundings open and close masks, layer after layer; what that costs has not been measured.

mod deformable;
mod graph;

use std::path::Path;

use anyhow::Result;
use eomt_edge_core::model::names;
use eomt_edge_host::output::usage;

use super::onnx::GraphBuilder;
use super::{ConvertOptions, Precision, Subject, Written, describe, position};
use crate::chain::{self, MULTIPLE, PATCH, Sizes};
use crate::checkpoint::{Chain, Resampling, read_chain};
use graph::Onnx;

/// Reads the folder and writes its graph.
pub(super) fn write(path: &Path, options: &ConvertOptions) -> Result<Written> {
    if options.precision != Precision::F32 {
        return usage(format!("--precision {}: networks with Mask2Former's decoder are converted to f32 only", options.precision.name()));
    }
    if let Some(hints) = &options.hints {
        return usage(format!("--hints {hints}: the config.json of a network with Mask2Former's decoder says everything"));
    }
    if let Some(base) = &options.base {
        return usage(format!("--base {}: a network with Mask2Former's decoder holds its whole encoder", base.display()));
    }
    let mut chain = read_chain(path)?;
    let mut warnings = std::mem::take(&mut chain.warnings);
    let subject = Subject {
        image_size: [chain.sizes.image; 2],
        multiple: [MULTIPLE; 2],
        patch_size: [PATCH; 2],
        labels: &chain.labels,
        stuff_classes: chain.stuff_classes.as_deref(),
        task: chain.task,
        image_mean: chain.image_mean,
        image_std: chain.image_std,
        thresholds: chain.thresholds,
        name: &chain.name,
        licence: chain.licence.as_deref(),
        source_sha256: &chain.source_sha256,
        rotary: false,
        state: None,
    };
    let metadata = describe(&subject, options, &mut warnings)?;
    let (height, width) = metadata.input_size;
    let graph = build(chain, [height, width]);
    let proto = graph.finish(&metadata.name, metadata.to_props());
    Ok(Written { proto, metadata, warnings, masked: 0, table: Vec::new() })
}

/// The graph of a network for inputs of `size` (height, width).
fn build(mut chain: Chain, size: [usize; 2]) -> GraphBuilder {
    resample_positions(&mut chain, size);
    let sizes: Sizes = chain.sizes;
    let mut backend = Onnx::new(chain.weights);
    let Ok(predictions) = chain::run(&mut backend, &sizes, size);
    let last = predictions.last().expect("one prediction");
    let classes = backend.graph.node("Identity", names::CLASS_LOGITS, &[&last.classes.value], &[]);
    let [height, width] = size.map(|side| side / 4);
    let masks = backend.graph.reshape(names::MASK_LOGITS, &last.masks.value, &[1, sizes.queries, height, width]);
    backend.graph.output(&classes, &[1, sizes.queries, sizes.classes + 1]);
    backend.graph.output(&masks, &[1, sizes.queries, height, width]);
    backend.graph
}

/// The table of positions for another grid than that of training, as EoMT's with registers.
fn resample_positions(chain: &mut Chain, size: [usize; 2]) {
    let (grid, own) = (size.map(|side| side / PATCH), [chain.sizes.grid(); 2]);
    if grid == own {
        return;
    }
    let table = chain.weights.get_mut("embeddings.position_embeddings.weight").expect("read with the others");
    table.data = position::interpolate(&table.data, own, grid, chain.sizes.hidden, Resampling::Antialiased);
    table.shape = vec![grid[0] * grid[1], chain.sizes.hidden];
}
