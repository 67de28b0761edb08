//! GridSample on several images, each with places of its own.

use super::engine::with_scratch;
use super::{Engine, Kernel, Memory};
use crate::kernels::grid_sample::{MapShape, grid_sample};

/// From `[N, C, H, W]` and places `[N, .., 2]` to `[N, C, ..]`.
#[derive(Debug, Clone)]
pub struct GridSampleSpec {
    /// N
    pub images: usize,
    /// C, H, W
    pub shape: MapShape,
    /// Places of one image.
    pub places: usize,
}

impl Kernel for GridSampleSpec {
    fn name(&self) -> &'static str {
        "GridSample"
    }

    fn out_len(&self, planned: usize, _inputs: &[&[f32]]) -> usize {
        planned
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let (map, places) = (inputs[0].len() / self.images, 2 * self.places);
        let width = self.shape.channels * self.places;
        engine.workers.rows(out, width, 1, 1, &|first, out| {
            for (image, out) in (first..).zip(out.chunks_exact_mut(width)) {
                let (map, places) = (&inputs[0][image * map..][..map], &inputs[1][image * places..][..places]);
                with_scratch(|scratch| grid_sample(map, places, self.shape, out, &mut scratch.samples));
            }
        });
    }

    /// Four pixels for each value.
    fn macs(&self) -> (usize, usize) {
        (0, 4 * self.images * self.shape.channels * self.places)
    }
}
