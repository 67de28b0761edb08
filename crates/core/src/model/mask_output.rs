//! From what the plan ends in to mask logits: of the kept queries only where the plan ends before the mask product.

use tract_onnx::prelude::{TractResult, TypedModel};

use super::fuse::MaskProduct;
use super::observe::{self, Observer, Operator};
use super::ops::{Engine, Kernel, ScaleBlockKernel};
use crate::kernels::product::{MaskProductScratch, mask_product};
use crate::kernels::scale_masks::{ScaleMasksScratch, Tokens, scale_block_masks};

/// Where the plan's mask output comes from.
pub enum MaskOutput {
    /// Output 1 is `[1, Q, h, w]`.
    Dense,
    /// Outputs 1 and 2 are the factors of the mask product.
    Product {
        sizes: MaskProduct,
        /// Output 2 is the input of this one, which is not part of the plan.
        last: Option<Box<LastScaleBlock>>,
        scratch: MaskProductScratch,
    },
}

/// The last ScaleBlock, whose pixels the mask product takes as they come.
pub struct LastScaleBlock {
    kernel: ScaleBlockKernel,
    scratch: ScaleMasksScratch,
}

impl MaskOutput {
    /// The product of these sizes; `half` asks for half precision where the CPU has fast products of it.
    pub fn product(sizes: MaskProduct, engine: &Engine, half: bool) -> MaskOutput {
        MaskOutput::Product { sizes, last: None, scratch: MaskProductScratch::new(engine.isa, half) }
    }

    /// Takes the last ScaleBlock out of `model`, lifted and not optimized yet, where the product reads one; gives its multiply-accumulates.
    pub fn take_scale_block(&mut self, model: &mut TypedModel, engine: &Engine) -> TractResult<u64> {
        let MaskOutput::Product { sizes, last, .. } = self else { return Ok(0) };
        if let Some(spec) = sizes.take_scale_block(model)? {
            let kernel = ScaleBlockKernel::pack(&spec, engine)?;
            *last = Some(Box::new(LastScaleBlock { kernel, scratch: ScaleMasksScratch::default() }));
        }
        let (int8, other) = self.macs(0);
        Ok(int8 + other)
    }

    /// Whether only the masks of kept queries are computed.
    pub fn is_product(&self) -> bool {
        matches!(self, MaskOutput::Product { .. })
    }

    /// The last ScaleBlock where it is not part of the plan.
    pub fn last(&self) -> Option<&ScaleBlockKernel> {
        match self {
            MaskOutput::Product { last: Some(last), .. } => Some(&last.kernel),
            _ => None,
        }
    }

    /// Multiply-accumulates outside of the plan for this many masks: of int8 and of other numbers.
    pub fn macs(&self, masks: usize) -> (u64, u64) {
        let (int8, other) = self.last().map_or((0, 0), Kernel::macs);
        match self {
            MaskOutput::Dense => (0, 0),
            MaskOutput::Product { sizes, .. } => (int8 as u64, (other + masks * sizes.pixels * sizes.channels) as u64),
        }
    }

    /// Masks of the queries `kept`, `[kept, pixels]`, from the plan's outputs 1 and, of a product, 2.
    #[allow(clippy::too_many_arguments)]
    pub fn write(
        &mut self,
        engine: &Engine,
        first: &[f32],
        second: &[f32],
        pixels: usize,
        kept: &[usize],
        masks: &mut [f32],
        observer: Option<&mut dyn Observer>,
    ) {
        let (int8_macs, f32_macs) = self.macs(kept.len());
        match self {
            MaskOutput::Dense => {
                for (mask, &query) in masks.chunks_exact_mut(pixels).zip(kept) {
                    mask.copy_from_slice(&first[query * pixels..(query + 1) * pixels]);
                }
            }
            MaskOutput::Product { sizes, last, scratch } => {
                let (Engine { isa, workers, .. }, channels) = (engine, sizes.channels);
                let kind = if last.is_some() { "ScaleBlock+MaskProduct" } else { "MaskProduct" };
                let operator = || Operator { name: "mask_product".to_owned(), kind: kind.to_owned(), int8_macs, f32_macs };
                observe::around(observer, operator, || match last {
                    None => mask_product(*isa, workers, first, second, channels, kept, masks, scratch),
                    Some(last) => {
                        let LastScaleBlock { kernel: ScaleBlockKernel { block, grid, start }, scratch: map } = &mut **last;
                        let tokens = Tokens { values: &second[*start * channels..], grid: *grid };
                        scale_block_masks(*isa, workers, first, block, tokens, kept, masks, (scratch, map));
                    }
                });
            }
        }
    }
}
