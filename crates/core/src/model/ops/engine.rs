//! What the operators of one model share: instruction set, threads, buffers.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tract_onnx::prelude::{Tensor, TractResult};
use tract_onnx::tract_core::internal::{IntoTValue, TValue};

use crate::kernels::arch::Isa;
use crate::kernels::attention::{AttentionScratch, Head};
use crate::kernels::grid_sample::SampleScratch;
use crate::kernels::linear::FusedMlpScratch;
use crate::kernels::packed::PackedHalf;
use crate::kernels::scale_block::ScaleScratch;
use crate::kernels::scale_changed::ChangedScratch;
use crate::kernels::token_merging::QuadtreeScratch;
use crate::kernels::workers::Workers;

/// Shared by all operators of one model.
#[derive(Debug, Clone)]
pub struct Engine {
    pub isa: Isa,
    pub workers: Workers,
    /// Layers and attention of f32 are computed in bfloat16, sums in f32.
    pub bf16: bool,
    /// The patch embedding is one of these layers even if [`Engine::bf16`] is off: pixels have 8 bits, and so has a bfloat16.
    pub half_pixels: bool,
    /// Outputs of nodes; one without another owner may be written again.
    buffers: Arc<Mutex<Vec<Arc<Tensor>>>>,
    /// Packed keys and values of the attention that runs.
    heads: Arc<Mutex<Vec<Head>>>,
}

/// What one thread needs besides inputs and outputs; it grows to what the largest operator wants, then stays.
#[derive(Debug, Default)]
pub struct Scratch {
    pub fused: FusedMlpScratch,
    pub attention: AttentionScratch,
    pub scale: ScaleScratch,
    pub scale_changed: ChangedScratch,
    /// Gathered patches.
    pub patches: Vec<f32>,
    pub quadtree: QuadtreeScratch,
    pub samples: SampleScratch,
    /// Of one query and head in deformable attention.
    pub weights: Vec<f32>,
    /// Gathered rows of what is added to them.
    pub residual: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends this thread's scratch.
pub fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(work)
}

// what is behind the locks is valid after every single assignment, so a panic elsewhere leaves nothing half done
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    pub fn new(isa: Isa, workers: Workers) -> Engine {
        Engine { isa, workers, bf16: false, half_pixels: false, buffers: Arc::default(), heads: Arc::default() }
    }

    /// Empty panels for matrices of f32 that are computed in bfloat16; `None`: they are computed in f32.
    pub fn half_panels(&self) -> Option<PackedHalf> {
        PackedHalf::new(self.isa).filter(|_| self.bf16)
    }

    /// A tensor of this shape without another owner, with old values in it.
    pub fn take(&self, shape: &[usize]) -> TractResult<Arc<Tensor>> {
        let len: usize = shape.iter().product();
        let mut buffers = lock(&self.buffers);
        let free = buffers.iter_mut().position(|buffer| buffer.len() == len && Arc::get_mut(buffer).is_some());
        let Some(index) = free else { return Ok(Arc::new(Tensor::zero::<f32>(shape)?)) };
        let mut buffer = buffers.swap_remove(index);
        if buffer.shape() != shape
            && let Some(tensor) = Arc::get_mut(&mut buffer)
        {
            tensor.set_shape(shape)?;
        }
        Ok(buffer)
    }

    /// Returns a filled tensor as a value, and keeps it for [`Engine::take`].
    pub fn keep(&self, tensor: Arc<Tensor>) -> TValue {
        lock(&self.buffers).push(Arc::clone(&tensor));
        tensor.into_tvalue()
    }

    /// A value of this shape with these values in it.
    pub fn filled(&self, shape: &[usize], values: &[f32]) -> TractResult<TValue> {
        let mut tensor = self.take(shape)?;
        let plain = Arc::get_mut(&mut tensor).expect("a buffer that was taken has no other owner");
        plain.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.copy_from_slice(values);
        Ok(self.keep(tensor))
    }

    /// Lends memory for the packed keys and values of an attention.
    pub fn with_heads<R>(&self, work: impl FnOnce(&mut Vec<Head>) -> R) -> R {
        work(&mut lock(&self.heads))
    }
}
