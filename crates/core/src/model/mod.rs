//! [`Tensor`] to [`Logits`]: loads the bytes of an ONNX file into an optimized tract plan and runs it.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use eomt_edge_core::data::{Logits, Tensor};
//! use eomt_edge_core::model::{LoadOptions, Model};
//! let bytes = std::fs::read("models/eomt-nano-scenes.onnx")?;
//! let mut model = Model::load(&bytes, &LoadOptions::default())?;
//! let (height, width) = model.metadata().input_size;
//! let mut logits = Logits::default();
//! model.run(&Tensor::zeros(height, width), |class, kept| kept.extend(0..class.queries), &mut logits)?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: the graph has one input `[1, 3, H, W]`, class logits `[1, Q, C + 1]` and mask logits `[1, Q, h, w]`; H and W are
//! fixed. A network for video has one more input and output, its [`QueryState`], which a [`Model`] carries from run to run. Refuses:
//! opening files (the caller does), guessing labels, training, networks other than EoMT.

pub mod bounds;
mod carried;
mod contain;
mod fuse;
mod guard;
pub mod label_sets;
mod load;
mod mask_output;
mod masks;
mod metadata;
mod observe;
mod onnx;
mod ops;
pub mod processor;
mod reuse;
#[cfg(test)]
mod tests;
mod third_party;
mod token_merging;

use std::sync::Arc;

use tract_onnx::prelude::{TValue, TVec, TypedRunnableModel, TypedSimpleState, tvec};
use tract_onnx::tract_core::internal::TractError;

pub use carried::{FirstState, QueryState};
pub use contain::is_contained;
pub use guard::Agreement;
pub use load::LoadOptions;
pub use masks::MaskCost;
pub use metadata::{IMAGENET_MEAN, IMAGENET_STD, Metadata, Precision, names};
pub use observe::{Observer, Operator, Unfused};
pub use onnx::ExternalData;
pub use reuse::{ReuseConfig, ReuseConfigError, ReuseCounts};
pub use third_party::Companions;

use crate::data::{ClassLogits, Logits, Tensor};
use crate::kernels::arch::Isa;
use carried::Carried;
use contain::contained;
use mask_output::MaskOutput;
use ops::{Engine, Kernel};
use reuse::Reuse;

/// `producer_name` of the files that `convert` writes: they describe themselves.
pub const PRODUCER: &str = "eomt-edge";

/// Why a model cannot be loaded or run. The caller adds the file's name.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Not a protocol buffer with a graph.
    #[error("this is not an ONNX file: {reason}")]
    NotOnnx {
        /// The decoder's words.
        reason: String,
    },
    /// Another network.
    #[error("this ONNX file is not an EoMT network: {reason}")]
    NotEomt {
        /// How it is known, and what to do.
        reason: String,
    },
    /// An operator, element type or tensor that is not implemented or cannot be read.
    #[error("this program cannot compute this network: {reason}")]
    Unsupported {
        /// Which one.
        reason: String,
    },
    /// A file of ours without an entry.
    #[error("the model's metadata lacks '{key}'")]
    MissingMetadata {
        /// The entry, one of [`names`].
        key: &'static str,
    },
    /// A file of ours with an entry that has no meaning.
    #[error("the model's metadata entry '{key}' is invalid: {reason}")]
    InvalidMetadata {
        /// The entry, one of [`names`].
        key: &'static str,
        /// What it should be.
        reason: String,
    },
    /// A third-party export without a configuration.
    #[error("the model says nothing about itself, so it needs a config.json beside it: {reason}")]
    NeedsConfig {
        /// What is wrong with the one that is there.
        reason: String,
    },
    /// A file beside the model contradicts it, or cannot be used.
    #[error("{reason}")]
    Companion {
        /// The whole sentence.
        reason: String,
    },
    /// The image processor's configuration beside the model.
    #[error("{0} (it lies beside the model)")]
    Processor(processor::ProcessorError),
    /// Neither graph nor files tell whether the network normalizes its input.
    #[error("where its pixel values are normalized is unclear: {reason}")]
    Normalization {
        /// Why, and what to do.
        reason: String,
    },
    /// [`LoadOptions::normalization`] for a file of ours.
    #[error("normalization applies to third-party exports only: this file itself says what it takes")]
    NotThirdParty,
    /// [`LoadOptions::merging`] does not fit the network.
    #[error("tokens cannot be merged (--merge, model.merge): {reason}")]
    TokenMerging {
        /// Why, and what would be right.
        reason: String,
    },
    /// [`LoadOptions::reuse`] for a network that reads its patches in another way.
    #[error("reuse over time cannot be applied to this network: {reason}; leave it off")]
    NoReuse {
        /// Which node, and why.
        reason: String,
    },
    /// tract failed.
    #[error("the inference engine cannot {action} this network: {reason}")]
    Engine {
        /// A verb: read, analyse, optimize, run.
        action: &'static str,
        /// tract's chain of causes.
        reason: String,
    },
    /// tract panicked, or one of our operators did.
    #[error("the inference engine gave up when it was to {action} this network ({reason}): the file is broken, or this is a bug")]
    GaveUp {
        /// A verb: load, run, evaluate.
        action: &'static str,
        /// The panic's words.
        reason: String,
    },
    /// [`Model::check`] found another answer.
    #[error(
        "the fused network gives other {output} than a plain evaluation of the same file (relative error {error:.2e}, {allowed} is \
         allowed), so its answers cannot be trusted: please report the file"
    )]
    Differs {
        /// Class logits or masks.
        output: &'static str,
        /// Mean difference over mean magnitude.
        error: f64,
        /// The same, at most.
        allowed: f64,
    },
    /// An answer holds infinities or NaN.
    #[error("the network's {output} are not numbers on ordinary pixels, so its answers cannot be trusted: look at its weights")]
    NotNumbers {
        /// Class logits or masks.
        output: &'static str,
    },
    /// The input tensor has another size than the network takes.
    #[error("the network takes {expected_height}x{expected_width} pixels (height x width), not {height}x{width}")]
    InputSize {
        /// Rows that the network takes.
        expected_height: usize,
        /// Columns that the network takes.
        expected_width: usize,
        /// Rows of the tensor.
        height: usize,
        /// Columns of the tensor.
        width: usize,
    },
}

impl ModelError {
    fn engine(action: &'static str) -> impl Fn(TractError) -> ModelError {
        move |error| ModelError::Engine { action, reason: one_line(&error) }
    }
}

/// The chain of causes in one line: where (the outermost names the node), then why.
fn one_line(error: &TractError) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let line = text.lines().next().unwrap_or_default().trim();
        if !line.is_empty() && parts.last().is_none_or(|last| last != line) {
            parts.push(line.chars().take(200).collect());
        }
    }
    parts.join(": ")
}

/// Remarks for the user of a model; the caller adds the file's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What is done otherwise than some file says, or costs more than it must.
    pub warnings: Vec<String>,
    /// How a third-party export was understood.
    pub facts: Vec<String>,
}

/// Where a network came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// Another program wrote or changed the file.
    pub third_party: bool,
    /// Layers are computed in int8.
    pub int8: bool,
    /// What the file has in f32 is computed in bfloat16 ([`LoadOptions::bf16`]).
    pub bf16: bool,
    /// Roundings of activations that the file asks for and that are left out.
    pub roundings: usize,
}

/// A loaded network with its running state; one per inference thread.
pub struct Model {
    metadata: Metadata,
    origin: Origin,
    plan: Arc<TypedRunnableModel>,
    state: TypedSimpleState,
    masks: MaskOutput,
    engine: Engine,
    /// Of a network for video: from the frame before.
    carried: Option<Carried>,
    queries: usize,
    classes: usize,
    /// (height, width) of a mask.
    mask_size: (usize, usize),
    mask_cost: Option<MaskCost>,
    merges_tokens: bool,
    remarks: Remarks,
    reuse: Option<Reuse>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("metadata", &self.metadata).field("queries", &self.queries).finish_non_exhaustive()
    }
}

impl Model {
    /// Task, labels, input size and the rest of what the file says about itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What was noticed while loading.
    pub fn remarks(&self) -> &Remarks {
        &self.remarks
    }

    /// What attention through masks costs; `None`: no attention reads one.
    pub fn mask_cost(&self) -> Option<MaskCost> {
        self.mask_cost
    }

    /// Whether patch tokens merge on the way ([`LoadOptions::merging`]).
    pub fn merges_tokens(&self) -> bool {
        self.merges_tokens
    }

    /// Where the network came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Multiply-accumulates of one run, with all masks, as the operators themselves state them.
    pub fn macs(&self) -> u64 {
        let plan: u64 = observe::operators(self.plan.model()).iter().map(|operator| operator.int8_macs + operator.f32_macs).sum();
        plan + self.mask_macs()
    }

    fn mask_macs(&self) -> u64 {
        let (int8, float) = self.masks.macs(self.queries);
        int8 + float
    }

    /// What no rule recognized, with its cost; `None` when everything that computes is ours.
    pub fn unfused(&self) -> Option<Unfused> {
        observe::unfused(self.plan.model(), self.mask_macs())
    }

    /// Q.
    pub fn queries(&self) -> usize {
        self.queries
    }

    /// (height, width) of the mask logits.
    pub fn mask_size(&self) -> (usize, usize) {
        self.mask_size
    }

    /// Whether only the masks of kept queries are computed (else all are, and the rest is thrown away).
    pub fn prunes_masks(&self) -> bool {
        self.masks.is_product()
    }

    /// The instruction set that the kernels use.
    pub fn isa(&self) -> Isa {
        self.engine.isa
    }

    /// Runs the network. `keep` sees the class logits and puts the queries whose masks are wanted, ascending, into an empty
    /// list.
    ///
    /// `logits` is overwritten; its buffers are reused from call to call. A network for video goes on from the last frame that went well;
    /// [`Model::reset`] makes the next one the first.
    ///
    /// # Errors
    /// [`ModelError::InputSize`] for a tensor of another size, [`ModelError::Engine`] when tract fails, [`ModelError::GaveUp`] when it
    /// panics.
    pub fn run(
        &mut self,
        input: &Tensor,
        keep: impl FnOnce(&ClassLogits, &mut Vec<usize>) + Send,
        logits: &mut Logits,
    ) -> Result<(), ModelError> {
        let workers = self.engine.workers.clone();
        workers.inside(|| {
            let inputs = self.feed(input)?;
            contained("run", || {
                let outputs = self.state.run(inputs).map_err(ModelError::engine("run"))?;
                self.heads(&outputs, keep, logits, None)
            })?;
            self.reuse.iter_mut().for_each(Reuse::after);
            Ok(())
        })
    }

    /// [`Model::run`], with `observer` called before and after each operator.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn run_observed(
        &mut self,
        input: &Tensor,
        keep: impl FnOnce(&ClassLogits, &mut Vec<usize>) + Send,
        logits: &mut Logits,
        observer: &mut dyn Observer,
    ) -> Result<(), ModelError> {
        let workers = self.engine.workers.clone();
        workers.inside(|| {
            let inputs = self.feed(input)?;
            let operators = observe::operators(self.plan.model());
            contained("run", || {
                let outputs = observe::run(&mut self.state, inputs, &operators, observer).map_err(ModelError::engine("run"))?;
                self.heads(&outputs, keep, logits, Some(observer))
            })?;
            self.reuse.iter_mut().for_each(Reuse::after);
            Ok(())
        })
    }

    /// Whether an answer depends on earlier inputs, so that frames must come in order and [`Model::reset`] matters.
    pub fn remembers(&self) -> bool {
        self.carried.is_some() || self.state.op_states.iter().any(Option::is_some)
    }

    /// Forgets what is left of earlier inputs: the next run gives what a freshly loaded model gives. Buffers stay warm.
    pub fn reset(&mut self) {
        if let Some(carried) = &mut self.carried {
            carried.reset();
        }
        self.reuse.iter_mut().for_each(Reuse::reset);
        if self.state.op_states.iter().any(Option::is_some) {
            self.state = self.plan.spawn().expect("this plan gave a state when the model was loaded");
        }
    }

    /// How many patches were computed since the last reset; `None`: reuse is off.
    pub fn reuse_counts(&self) -> Option<ReuseCounts> {
        self.reuse.as_ref().map(Reuse::counts)
    }

    /// The input as the plan takes it, and what of it is to be computed.
    fn feed(&mut self, input: &Tensor) -> Result<TVec<TValue>, ModelError> {
        let (expected_height, expected_width) = self.metadata.input_size;
        if (input.height, input.width) != self.metadata.input_size {
            return Err(ModelError::InputSize { expected_height, expected_width, height: input.height, width: input.width });
        }
        let feeding = ModelError::engine("feed");
        let pixels = self.engine.filled(&[1, 3, input.height, input.width], &input.values).map_err(&feeding)?;
        let mut inputs = tvec![pixels];
        if let Some(carried) = &self.carried {
            inputs.push(carried.feed(&self.engine).map_err(&feeding)?);
        }
        self.reuse.iter_mut().for_each(|reuse| reuse.before(input));
        Ok(inputs)
    }

    /// The plan's outputs to logits: the part of a run that lies outside the plan.
    fn heads(
        &mut self,
        outputs: &TVec<TValue>,
        keep: impl FnOnce(&ClassLogits, &mut Vec<usize>),
        logits: &mut Logits,
        observer: Option<&mut dyn Observer>,
    ) -> Result<(), ModelError> {
        let read = |index: usize| outputs[index].try_as_plain_ram().and_then(|plain| plain.as_slice::<f32>());
        logits.class.queries = self.queries;
        logits.class.classes = self.classes;
        logits.class.values.clear();
        logits.class.values.extend_from_slice(read(0).map_err(ModelError::engine("read the class logits of"))?);
        if logits.class.values.len() != self.queries * self.classes {
            let reason = format!("it gave {} class logits, not {} x {}", logits.class.values.len(), self.queries, self.classes);
            return Err(ModelError::Engine { action: "run", reason });
        }
        if logits.class.values.iter().any(|value| value.is_nan()) {
            let reason = "its class logits are not numbers (NaN): its weights are damaged, or it overflows".to_owned();
            return Err(ModelError::Engine { action: "run", reason });
        }
        logits.kept.clear();
        keep(&logits.class, &mut logits.kept);
        (logits.height, logits.width) = self.mask_size;
        let pixels = logits.height * logits.width;
        logits.masks.resize(logits.kept.len() * pixels, 0.0);
        let (first, masks) = (read(1).map_err(ModelError::engine("read the masks of"))?, &mut self.masks);
        let second = if masks.is_product() { read(2).map_err(ModelError::engine("read the features of"))? } else { &[] };
        masks.write(&self.engine, first, second, pixels, &logits.kept, &mut logits.masks, observer);
        match &mut self.carried {
            // behind the outputs of the heads
            Some(carried) => outputs.last().map_or(Ok(()), |next| carried.take(next)).map_err(ModelError::engine("run")),
            None => Ok(()),
        }
    }

    /// The plan's operators with their number, most frequent first: for `bench` and the curious.
    pub fn operators(&self) -> Vec<(String, usize)> {
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for node in self.plan.model().nodes() {
            *counts.entry(node.op.name().into_owned()).or_default() += 1;
        }
        if let Some(last) = self.masks.last() {
            *counts.entry(last.name().to_owned()).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), name.clone()));
        counts
    }
}
