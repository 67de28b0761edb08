//! What a thread keeps from shard to shard: memory for values in between, and the gradients of weights that fused operators add to.
//!
//! A graph's operator takes three tensors at most, and a block of the network has a dozen weights. Fused operators therefore hold their weights
//! themselves, and add gradients here instead of handing them to the graph.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{Tensor, TensorId};

/// Memory to use again. Pages that the system has handed out once need not be cleared a second time.
#[derive(Debug, Default)]
struct Pool(Mutex<Vec<Vec<f32>>>);

/// Numbers that go back to their pool when they are dropped. They hold whatever was there before.
#[derive(Debug)]
pub(super) struct Buffer {
    values: Vec<f32>,
    len: usize,
    pool: Arc<Pool>,
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        locked(&self.pool.0).push(std::mem::take(&mut self.values));
    }
}

/// A thread that panicked ends the run, so what it held is never read.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Buffers and gradients of one thread.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pool: Arc<Pool>,
    gradients: Mutex<HashMap<TensorId, Buffer>>,
}

impl Workspace {
    /// `len` numbers of any value.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let mut free = locked(&self.pool.0);
        // the smallest that is large enough, unless that would waste more than half of it
        let fits = |values: &Vec<f32>| (len..=2 * len).contains(&values.len());
        let best = free.iter().enumerate().filter(|(_, values)| fits(values)).min_by_key(|(_, values)| values.len());
        let values = match best.map(|(place, _)| place) {
            Some(place) => free.swap_remove(place),
            None => vec![0.0; len],
        };
        Buffer { values, len, pool: self.pool.clone() }
    }

    /// `len` zeros.
    pub(super) fn zeros(&self, len: usize) -> Buffer {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }

    /// Lets `add` add to the gradient of `weight`, which is zero at first.
    pub(super) fn gradient(&self, weight: &Tensor, add: impl FnOnce(&mut [f32])) {
        let mut gradients = locked(&self.gradients);
        add(gradients.entry(weight.id()).or_insert_with(|| self.zeros(weight.elem_count())));
    }

    /// Adds `values` to the gradient of `weight`.
    pub(super) fn add(&self, weight: &Tensor, values: &[f32]) {
        self.gradient(weight, |gradient| gradient.iter_mut().zip(values).for_each(|(sum, value)| *sum += value));
    }

    /// The gradient of `weight`, which is zero again; `None` when nothing was added.
    pub(super) fn harvest(&self, weight: &Tensor) -> Option<Buffer> {
        locked(&self.gradients).remove(&weight.id())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn memory_is_used_again_and_gradients_add_up() {
        let workspace = Workspace::default();
        let mut first = workspace.take(100);
        first.fill(3.0);
        let place = first.as_ptr();
        drop(first);
        assert!(workspace.take(40).as_ptr() != place, "too small a use for it");
        let zeros = workspace.zeros(60);
        assert!(zeros.as_ptr() == place && zeros.len() == 60 && zeros.iter().all(|value| *value == 0.0));
        let weight = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
        workspace.add(&weight, &[1.0, 2.0]);
        workspace.gradient(&weight, |gradient| gradient[1] += 5.0);
        assert_eq!(*workspace.harvest(&weight).unwrap(), [1.0, 7.0]);
        assert!(workspace.harvest(&weight).is_none());
    }
}
