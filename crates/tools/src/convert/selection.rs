//! Layer selection: which layers become int8, by the noise that each would add, and the table that reports it.
//!
//! The measure is the ratio of signal to quantization noise (SQNR) of a layer's product, without its bias, on held-out calibration rows,
//! with weights and activations in int8 and the bias corrected ([`super::quantize`]). The rule:
//!
//! - **Blocks and upscaling** are int8 from [`MIDDLE_MIN_DB`] on. A sound layer has about 40 dB; at 20 dB, one layer adds as much
//!   noise as a hundred sound ones, more than a whole ViT-S has (74). Below that, one layer costs more than all others together.
//! - **Heads** are int8 from [`EDGE_MIN_DB`] on. No residual branch bypasses them, so their error reaches the logits undamped: at 40 dB
//!   the class head alone would be off by 1 %, the budget of the whole network. They work on the queries only, under 1 % of all
//!   multiplications, so f32 costs next to nothing.
//! - **The query updater** of a network for video is int8 from [`EDGE_MIN_DB`] on, too: its error reaches every later frame.
//! - **Patch embedding** stays f32: it sees the picture itself, its error reaches every later layer, it is 1 to 4 % of the work, and
//!   as a convolution it has no integer form that runs fast everywhere.
//! - **Mask product** stays f32: both factors are activations, its error lands in the mask logits, and a runtime that
//!   skips the masks of hopeless queries has little left of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use eomt_edge_host::output::say;

use super::gptq::ErrorFeedback;
use super::layers;
use super::quantize::{Int8Layer, Int8Rows, bias_correction, signal_to_noise_db};
use super::samples::Calibration;
use crate::checkpoint::{Array, Network};

/// Blocks and upscaling below this stay f32, decibels.
const MIDDLE_MIN_DB: f64 = 20.0;
/// Heads below this stay f32, decibels: half a percent of error.
const EDGE_MIN_DB: f64 = 46.0;

/// The most threads: each holds copies of a layer's rows and a square matrix of its channels.
const THREADS_MAX: usize = 8;

/// What was decided for one layer: a line of the table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LayerChoice {
    pub name: String,
    pub outputs: usize,
    pub inputs: usize,
    /// Signal to quantization noise as int8, decibels.
    pub int8_db: f64,
    pub int8: bool,
    /// Why it stays f32; empty for int8.
    pub reason: &'static str,
}

/// Measures every layer of the prepared network. Returns the table and, by name, the layers that become int8.
pub(super) fn select(network: &Network, calibration: &Calibration) -> (Vec<LayerChoice>, BTreeMap<String, Int8Layer>) {
    let layers = layers::weights(network);
    // layers with the same input share its coefficients, so a thread takes all of them
    let groups: Vec<_> = layers.chunk_by(|(a, _), (b, _)| calibration.same_input(a, b)).collect();
    let next = AtomicUsize::new(0);
    let measured = Mutex::new(Vec::new());
    let work = || {
        while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = measure_group(group, calibration);
            measured.lock().unwrap_or_else(PoisonError::into_inner).extend(result);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    std::thread::scope(|scope| {
        // this thread works too, alone if the system gives no other
        (1..threads).for_each(|_| drop(std::thread::Builder::new().spawn_scoped(scope, work)));
        work();
    });
    let mut measured: BTreeMap<String, (LayerChoice, Option<Int8Layer>)> = measured
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_iter()
        .map(|(layer, int8)| (layer.name.clone(), (layer, int8)))
        .collect();
    let (mut table, mut int8) = (Vec::new(), BTreeMap::new());
    for (name, _) in &layers {
        if let Some((layer, quantized)) = measured.remove(name) {
            int8.extend(quantized.map(|quantized| (name.clone(), quantized)));
            table.push(layer);
        }
    }
    table.extend(measure_mask_product(network, calibration));
    (table, int8)
}

/// Layers with the same input.
fn measure_group(group: &[(String, Cow<'_, Array>)], calibration: &Calibration) -> Vec<(LayerChoice, Option<Int8Layer>)> {
    let Some(samples) = calibration.get(&group[0].0) else { return Vec::new() };
    let columns = samples.columns;
    let (to_fit, held_out) = (samples.to_fit(), samples.held_out());
    let feedback = ErrorFeedback::of_inputs(&to_fit, columns);
    let each = group.iter().map(|(name, weight)| {
        let weights = feedback.quantize(&weight.data);
        let rounded = weights.restored();
        let correction = bias_correction(&to_fit, &weight.data, &rounded, columns);
        let int8_db = signal_to_noise_db(&held_out, &weight.data, &rounded, columns, &correction);
        let reason = reason_for_f32(name, int8_db);
        let int8 = reason.is_empty();
        let layer = LayerChoice { name: name.clone(), outputs: weight.shape[0], inputs: columns, int8_db, int8, reason };
        (layer, int8.then_some(Int8Layer { weights, correction }))
    });
    each.collect()
}

fn measure_mask_product(network: &Network, calibration: &Calibration) -> Option<LayerChoice> {
    let (features, queries) = (calibration.get(layers::MASK_FEATURES)?, calibration.get(layers::MASK_QUERIES)?);
    let columns = features.columns;
    let rounded = Int8Rows::quantize(&queries.values, columns).restored();
    let uncorrected = vec![0.0; queries.values.len() / columns];
    let int8_db = signal_to_noise_db(&features.held_out(), &queries.values, &rounded, columns, &uncorrected);
    let reason = "both factors are activations, next to the mask logits";
    Some(LayerChoice { name: "mask_product".to_owned(), outputs: network.queries.shape[0], inputs: columns, int8_db, int8: false, reason })
}

/// Why a layer stays f32; empty for int8.
fn reason_for_f32(name: &str, int8_db: f64) -> &'static str {
    let below = |bound: f64| int8_db.is_nan() || int8_db < bound;
    let is_head = name == layers::CLASS_HEAD || name.starts_with("mask_head.");
    if name == layers::PATCH_EMBED {
        "convolution on the picture itself"
    } else if is_head && below(EDGE_MIN_DB) {
        "next to the logits: below 46 dB"
    } else if name == layers::QUERY_UPDATER && below(EDGE_MIN_DB) {
        "goes on to all later frames: below 46 dB"
    } else if !is_head && below(MIDDLE_MIN_DB) {
        "below 20 dB"
    } else {
        ""
    }
}

/// Prints the table on standard output.
pub(super) fn print(table: &[LayerChoice]) -> Result<()> {
    let width = table.iter().map(|layer| layer.name.len()).max().unwrap_or_default();
    say(format_args!("{:width$}  {:>11}  precision  int8 signal to noise", "layer", "out x in"))?;
    for layer in table {
        let shape = format!("{}x{}", layer.outputs, layer.inputs);
        let precision = if layer.int8 { "int8" } else { "f32" };
        let line = format!("{:width$}  {shape:>11}  {precision:9}  {:6.1} dB  {}", layer.name, layer.int8_db, layer.reason);
        say(line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule() {
        assert_eq!(reason_for_f32("block.3.mlp.down", 20.5), "");
        assert_eq!(reason_for_f32("scale_block.0.up", 19.5), "below 20 dB");
        assert_ne!(reason_for_f32(layers::CLASS_HEAD, 40.0), "");
        assert_eq!(reason_for_f32(&layers::mask_head(1), f64::INFINITY), "");
        assert_ne!(reason_for_f32(layers::PATCH_EMBED, 60.0), "");
        assert_ne!(reason_for_f32(layers::QUERY_UPDATER, 40.0), "");
        assert_eq!(reason_for_f32(layers::QUERY_UPDATER, 47.0), "");
        // a layer that always returns 0 has no signal
        assert_ne!(reason_for_f32("block.0.mlp.up", f64::NEG_INFINITY), "");
        assert_ne!(reason_for_f32("block.0.mlp.up", f64::NAN), "");
        assert_ne!(reason_for_f32(layers::CLASS_HEAD, f64::NAN), "");
    }
}
