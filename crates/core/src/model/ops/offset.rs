//! A constant added to every value.

use std::sync::Arc;

use super::{Engine, Kernel, Memory};

/// As many values as the input has, added one by one: the learned queries of a network for video to what it carries.
#[derive(Debug, Clone)]
pub struct OffsetSpec(pub Arc<Vec<f32>>);

impl Kernel for OffsetSpec {
    fn name(&self) -> &'static str {
        "Offset"
    }

    fn out_len(&self, planned: usize, _inputs: &[&[f32]]) -> usize {
        planned
    }

    fn run(&self, _engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        assert!(inputs[0].len() == self.0.len() && out.len() == self.0.len(), "an offset has a value for each of the input");
        for ((to, value), offset) in out.iter_mut().zip(inputs[0]).zip(self.0.iter()) {
            *to = value + offset;
        }
    }

    fn macs(&self) -> (usize, usize) {
        (0, 0)
    }
}
