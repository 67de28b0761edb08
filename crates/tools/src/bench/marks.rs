//! The network for an instruction counter: no clock, no warm-up, no pipeline; a marker after loading and after each inference.

use std::path::Path;

use anyhow::Result;
use eomt_edge_core::data::{Logits, Tensor};
use eomt_edge_core::kernels::arch::mark;
use eomt_edge_host::model_file;
use eomt_edge_host::output::say;

use super::{BenchOptions, fixed_tensor, inputs, pixel_values, stages};

/// Runs `options.frames` inferences; as in the daemon, with the masks of surviving queries only, unless `options.all_queries` is set.
pub(super) fn run(path: &Path, options: &BenchOptions) -> Result<()> {
    let mut model = model_file::load(path, &super::compute(options))?;
    let tensors: Vec<Tensor> = match options.image {
        Some(_) => inputs(options)?.iter().map(|frame| pixel_values(model.metadata(), frame)).collect(),
        None => vec![fixed_tensor(model.metadata().input_size)],
    };
    let config = stages::config(&model, options);
    let mut logits = Logits::default();
    mark();
    for tensor in tensors.iter().cycle().take(options.frames) {
        model.run(tensor, |class, kept| stages::keep(class, &config, options.all_queries, kept), &mut logits)?;
        mark();
    }
    let isa = model.isa().name();
    say(format_args!("{}: {isa}, {} inferences, a marker after loading and after each", path.display(), options.frames))
}
