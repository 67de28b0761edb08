//! Where the pipeline meets the engine.

use crate::data::{ClassLogits, Logits, Tensor};
use crate::kernels::arch::Isa;
use crate::model::{Metadata, Model, ModelError};

/// Chooses the queries whose masks are wanted: sees the class logits, and appends query numbers, ascending, to an empty list.
pub type Keep<'a> = dyn FnMut(&ClassLogits, &mut Vec<usize>) + Send + 'a;

/// A network that turns a tensor into logits: [`Model`], or another engine.
pub trait Network: Send {
    /// Input size, normalization, labels, task.
    fn metadata(&self) -> &Metadata;

    /// The instruction set on which the stages around the network run, too.
    fn isa(&self) -> Isa;

    /// Computes the class logits of `input`, `[1, 3, height, width]`, calls `keep` once, and computes the masks of what it kept.
    ///
    /// Overwrites all of `logits`; its buffers are reused from call to call.
    ///
    /// # Errors
    /// When the input has another size than [`Metadata::input_size`], or the engine fails. The network stays usable.
    fn run(&mut self, input: &Tensor, keep: &mut Keep, logits: &mut Logits) -> Result<(), ModelError>;

    /// Forgets earlier frames: the next run gives what a freshly loaded network gives.
    fn reset(&mut self);
}

impl Network for Model {
    fn metadata(&self) -> &Metadata {
        Model::metadata(self)
    }

    fn isa(&self) -> Isa {
        Model::isa(self)
    }

    fn run(&mut self, input: &Tensor, keep: &mut Keep, logits: &mut Logits) -> Result<(), ModelError> {
        Model::run(self, input, keep, logits)
    }

    fn reset(&mut self) {
        Model::reset(self);
    }
}
