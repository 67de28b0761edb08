//! The networks that EoMT is left of when parts are removed: ViT-Adapter with Mask2Former, and what lies in between (EoMT paper, Kerssies
//! et al. 2025, section 3.1 and Table 1).
//!
//! ```text
//! vit-adapter-m2f    ViT + adapter ─▶ four maps ─▶ pixel decoder ─▶ three maps, mask features ─▶ transformer decoder
//! no-adapter         ViT ─▶ simple feature pyramid ─▶ pixel decoder ─▶ three maps, mask features ─▶ transformer decoder
//! no-pixel-decoder   ViT ─▶ simple feature pyramid ─▶ three maps, mask features ─▶ transformer decoder
//! no-multi-scale     ViT ─▶ one map, mask features ─▶ transformer decoder
//! eomt               (`crate::checkpoint`, `crate::convert`)
//! ```
//!
//! Each is written down once, in [`run`], over the operators of a [`Backend`]: training brings gradients, `convert` writes ONNX, [`weights()`]
//! lists names and shapes.
//!
//! The adapter is that of Chen et al. (2023), section 3 (spatial prior module, injectors, extractors); pixel decoder and transformer decoder
//! are those of Mask2Former (Cheng et al. 2022), as transformers' `Mask2FormerPixelDecoder` and `Mask2FormerTransformerModule` compute
//! them, whose names their weights have; the encoder is DINOv2's ViT with registers under the names of transformers' EoMT.
//!
//! Invariants: all maps follow from the input's size, a multiple of [`MULTIPLE`]. Refuses: patches other than 16 pixels, without which no
//! map lies at a sixteenth of the input.

mod adapter;
mod backend;
mod encoder;
mod pixel_decoder;
mod pyramid;
mod transformer_decoder;
mod weights;

use serde::{Deserialize, Serialize};

pub use backend::{Activation, Attention, Backend, BatchNorm, Conv, Deformable, Init, Linear, Map, Norm, Tokens, Weight};
pub use weights::weights;

/// What is left of ViT-Adapter with Mask2Former.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// All of it.
    VitAdapterM2f,
    /// A simple feature pyramid instead of the adapter.
    NoAdapter,
    /// And no pixel decoder.
    NoPixelDecoder,
    /// And one map instead of three.
    NoMultiScale,
}

impl Architecture {
    /// All of them, the largest first.
    pub const ALL: [Architecture; 4] =
        [Architecture::VitAdapterM2f, Architecture::NoAdapter, Architecture::NoPixelDecoder, Architecture::NoMultiScale];

    /// As on the command line and in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::VitAdapterM2f => "vit-adapter-m2f",
            Architecture::NoAdapter => "no-adapter",
            Architecture::NoPixelDecoder => "no-pixel-decoder",
            Architecture::NoMultiScale => "no-multi-scale",
        }
    }
}

/// Pixels along a side of a patch.
pub const PATCH: usize = 16;
/// Both sides of the input are multiples of it, so that the coarsest map has whole pixels.
pub const MULTIPLE: usize = 32;
/// Patches along a side, at most.
const GRID_MAX: usize = 256;
/// Groups of Mask2Former's group norms.
const GROUPS: usize = 32;
/// Points per head and map of deformable attention, in both papers.
const POINTS: usize = 4;
/// Epsilon of PyTorch's norms, which Mask2Former keeps.
const EPS: f32 = 1e-5;

/// Sizes of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// What is left.
    pub architecture: Architecture,
    /// Width of the ViT, D.
    pub hidden: usize,
    /// Attention heads of the ViT; divides `hidden`.
    pub heads: usize,
    /// Blocks of the ViT.
    pub blocks: usize,
    /// Width of the ViT's MLP.
    pub inner: usize,
    /// Register tokens of the ViT.
    pub registers: usize,
    /// Pixels along a side of the square input of training.
    pub image: usize,
    /// Epsilon of the ViT's norms.
    pub eps: f32,
    /// Queries, Q.
    pub queries: usize,
    /// Classes, C.
    pub classes: usize,
    /// Width of Mask2Former's decoders; a multiple of 32.
    pub decoder_width: usize,
    /// Their attention heads.
    pub decoder_heads: usize,
    /// Layers of the transformer decoder.
    pub decoder_layers: usize,
    /// Width of its MLPs.
    pub decoder_inner: usize,
    /// Layers of the pixel decoder's encoder.
    pub pixel_decoder_layers: usize,
    /// Width of their MLPs.
    pub pixel_decoder_inner: usize,
    /// Times that adapter and ViT exchange; divides `blocks`.
    pub interactions: usize,
    /// Channels of the spatial prior module's first map.
    pub prior_channels: usize,
    /// Width of the adapter's deformable attention, of `hidden`.
    pub deformable_ratio: f32,
}

impl Sizes {
    /// The sizes of the papers around a ViT of these: Mask2Former's decoders are 256 wide with 9 and 6 layers, the adapter interacts four
    /// times, and its deformable attention is as wide as a small ViT and half as wide as others (ViT-Adapter's configurations).
    pub fn of_vit(architecture: Architecture, hidden: usize, heads: usize, blocks: usize) -> Sizes {
        Sizes {
            architecture,
            hidden,
            heads,
            blocks,
            inner: 4 * hidden,
            registers: 4,
            image: 640,
            eps: 1e-6,
            queries: 200,
            classes: 0,
            decoder_width: 256,
            decoder_heads: 8,
            decoder_layers: 9,
            decoder_inner: 2048,
            pixel_decoder_layers: 6,
            pixel_decoder_inner: 1024,
            interactions: (1..=4).rev().find(|count| blocks.is_multiple_of(*count)).unwrap_or(1),
            prior_channels: 64,
            deformable_ratio: if hidden >= 768 { 0.5 } else { 1.0 },
        }
    }

    /// Patches along a side in training.
    pub fn grid(&self) -> usize {
        self.image / PATCH
    }

    /// Width of the adapter's deformable attention.
    fn deformable_width(&self) -> usize {
        (self.hidden as f32 * self.deformable_ratio) as usize
    }

    /// Width between the layers of an extractor's MLP: a quarter (ViT-Adapter's `cffn_ratio`).
    fn extractor_inner(&self) -> usize {
        self.hidden / 4
    }

    /// # Errors
    /// One sentence that names the number when no network has these sizes.
    pub fn check(&self) -> Result<(), String> {
        const WIDTH_MAX: usize = 1 << 14;
        const LAYERS_MAX: usize = 1000;
        let widths = [
            self.hidden,
            self.inner,
            self.queries,
            self.classes,
            self.decoder_width,
            self.decoder_inner,
            self.pixel_decoder_inner,
            self.prior_channels,
        ];
        let layers = [self.blocks, self.decoder_layers, self.pixel_decoder_layers, self.interactions, self.heads, self.decoder_heads];
        if widths.contains(&0) || layers.contains(&0) || self.image == 0 {
            return Err("a network needs widths, heads, blocks, layers, queries, classes and an input size above 0".to_owned());
        }
        if let Some(width) = widths.into_iter().find(|width| *width > WIDTH_MAX) {
            return Err(format!("a width, or number of queries or classes, of {width} is more than any network of this kind has"));
        }
        if let Some(count) = layers.into_iter().chain([self.registers]).find(|count| *count > LAYERS_MAX) {
            return Err(format!("{count} layers, heads or registers are more than any network of this kind has"));
        }
        if !self.image.is_multiple_of(MULTIPLE) || self.image > PATCH * GRID_MAX {
            return Err(format!("the input of {} pixels is no multiple of {MULTIPLE}, or more than {}", self.image, PATCH * GRID_MAX));
        }
        if !self.decoder_width.is_multiple_of(GROUPS) || !self.decoder_width.is_multiple_of(self.decoder_heads) {
            let (width, heads) = (self.decoder_width, self.decoder_heads);
            return Err(format!("a decoder's width of {width} is no multiple of {GROUPS}, or {heads} heads cannot share it"));
        }
        let deformable = self.deformable_width();
        let shared = self.hidden.is_multiple_of(self.heads) && deformable.is_multiple_of(self.heads);
        if !shared || deformable == 0 || deformable > WIDTH_MAX {
            return Err(format!("a width of {} cannot be shared by {} heads", self.hidden, self.heads));
        }
        if !self.blocks.is_multiple_of(self.interactions) {
            return Err(format!("{} interactions do not divide {} blocks", self.interactions, self.blocks));
        }
        if self.extractor_inner() == 0 || !(self.eps.is_finite() && self.eps > 0.0) {
            return Err(format!("a width of {} and an epsilon of {} are none", self.hidden, self.eps));
        }
        Ok(())
    }
}

/// Class logits `[B, Q, C + 1]` and mask logits `[B, Q, height * width / 16]`.
pub struct Prediction<V> {
    /// Class logits.
    pub classes: Tokens<V>,
    /// Mask logits.
    pub masks: Tokens<V>,
}

/// The network `sizes` for inputs of `size` (height, width), as `backend` computes it: one prediction before the transformer decoder and one
/// behind each of its layers, or the last one alone ([`Backend::wants_all`]).
///
/// # Errors
/// Those of the backend.
pub fn run<B: Backend>(backend: &mut B, sizes: &Sizes, size: [usize; 2]) -> Result<Vec<Prediction<B::Value>>, B::Error> {
    let pixels = backend.pixels(size)?;
    let features = match sizes.architecture {
        Architecture::VitAdapterM2f => {
            let maps = adapter::run(backend, sizes, &pixels)?;
            pixel_decoder::run(backend, sizes, &maps)?
        }
        Architecture::NoAdapter => {
            let tokens = encoder::run(backend, sizes, &pixels)?;
            let maps = pyramid::four(backend, sizes, &tokens)?;
            pixel_decoder::run(backend, sizes, &maps)?
        }
        Architecture::NoPixelDecoder => {
            let tokens = encoder::run(backend, sizes, &pixels)?;
            let [quarter, eighth, sixteenth, last] = pyramid::four(backend, sizes, &tokens)?;
            let masks = pyramid::mask_features(backend, sizes, &quarter)?;
            Features { masks, scales: vec![last, sixteenth, eighth] }
        }
        Architecture::NoMultiScale => {
            let map = encoder::run(backend, sizes, &pixels)?;
            let quarter = pyramid::quarter(backend, sizes, &map)?;
            let masks = pyramid::mask_features(backend, sizes, &quarter)?;
            Features { masks, scales: vec![map] }
        }
    };
    transformer_decoder::run(backend, sizes, &features)
}

/// What the transformer decoder reads.
struct Features<V> {
    /// At a quarter of the input.
    masks: Map<V>,
    /// The coarsest first.
    scales: Vec<Map<V>>,
}
