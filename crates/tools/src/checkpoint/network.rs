//! The types of this module: the weights of one EoMT network, whatever file they came from.
//!
//! Every array is row-major `f32`, every value is finite, and every length follows from `hidden` (D), the number of
//! blocks, queries (Q), classes (C), register tokens (R) and the patch size (P).

use eomt_edge_core::data::{Task, Thresholds};

/// A row-major tensor; `data.len()` is the product of `shape`.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Size of each dimension, the outermost first.
    pub shape: Vec<usize>,
    /// The values.
    pub data: Vec<f32>,
}

/// `y = weight x + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Array,
    /// `[out]`; the keys of DINOv3 have none.
    pub bias: Option<Vec<f32>>,
}

/// Layer norm over the last axis: `(x - mean) / sqrt(var + eps) * scale + shift`.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// `[D]`
    pub scale: Vec<f32>,
    /// `[D]`
    pub shift: Vec<f32>,
    /// Added to the variance.
    pub eps: f32,
}

/// The activation functions that a checkpoint may name in `hidden_act`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)`, with the exact error function.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `max(x, 0)`
    Relu,
    /// `x sigmoid(x)`
    Silu,
    /// `x sigmoid(1.702 x)`
    QuickGelu,
}

impl Activation {
    /// The activation that transformers knows by this name, if we have it.
    pub(super) fn named(name: &str) -> Option<Activation> {
        Some(match name {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            "quick_gelu" => Activation::QuickGelu,
            _ => return None,
        })
    }
}

/// The feed-forward half of a block; F is its inner width.
#[derive(Debug, Clone, PartialEq)]
pub enum Mlp {
    /// `down(act(up x))`
    Plain {
        /// `[F, D]`
        up: Linear,
        /// `[D, F]`
        down: Linear,
        /// Between the two.
        activation: Activation,
    },
    /// `down(act(gate x) * up x)`: SwiGLU when `activation` is SiLU (Shazeer 2020).
    Gated {
        /// `[F, D]`
        gate: Linear,
        /// `[F, D]`
        up: Linear,
        /// `[D, F]`
        down: Linear,
        /// Of the gate.
        activation: Activation,
    },
}

/// One transformer block: `x += scale1 * attention(norm1 x)`, then `x += scale2 * mlp(norm2 x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Before the attention.
    pub norm1: Norm,
    /// Queries, `[D, D]`; head h owns the rows `h D/heads ..` of q, k and v.
    pub q: Linear,
    /// Keys, `[D, D]`.
    pub k: Linear,
    /// Values, `[D, D]`.
    pub v: Linear,
    /// Output projection, `[D, D]`.
    pub out: Linear,
    /// LayerScale, `[D]`; absent means 1.
    pub scale1: Option<Vec<f32>>,
    /// Before the MLP.
    pub norm2: Norm,
    /// The feed-forward half.
    pub mlp: Mlp,
    /// LayerScale, `[D]`; absent means 1.
    pub scale2: Option<Vec<f32>>,
}

/// Doubles the grid: transposed convolution (2x2, stride 2), activation, depthwise 3x3 (padding 1, no bias), layer norm
/// over channels.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleBlock {
    /// `[in, out, 2, 2]`, in = out = D
    pub up_weight: Array,
    /// `[D]`; one for each of the four pixels, `[4 D]` in the order (dy, dx, channel), once `convert` has removed the mean of the input.
    pub up_bias: Vec<f32>,
    /// `[D, 1, 3, 3]`
    pub depthwise: Array,
    /// Over channels.
    pub norm: Norm,
}

/// How the network encodes the position of a patch.
#[derive(Debug, Clone, PartialEq)]
pub enum Position {
    /// DINOv2: a table that is added to the patches.
    Learned {
        /// Rows and columns of the table: those of training, or of pre-training when the network resamples it at run time.
        grid: [usize; 2],
        /// `[rows * columns, D]`
        table: Array,
        /// How the table changes for another grid.
        resampling: Resampling,
    },
    /// DINOv3: queries and keys of the patches are rotated (RoPE, Su et al. 2021).
    Rotary {
        /// Base of the frequencies.
        theta: f32,
    },
}

/// How a table of positions is resampled to another grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Resampling {
    /// Bicubic (a = -0.5) with a filter that widens when the grid shrinks: timm, and DINOv2 with registers.
    Antialiased,
    /// Bicubic (a = -0.75) without antialiasing. Places are scaled by `(size + offset) / table size` along each axis.
    Plain {
        /// 0.1 in Meta's DINOv2 without registers, else 0.
        offset: f64,
    },
}

/// Masked attention of a block (EoMT paper, section 3.3): whether its queries see all patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masking {
    /// Every token sees every token.
    Off,
    /// A query sees a patch where its own mask logit, predicted from the state before this block, is above 0.
    Own,
    /// The mask of the nearest earlier `Own` block still applies, as in transformers when a probability is 0.
    Previous,
}

/// One EoMT network, ready to be written as a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// D, the width of a token.
    pub hidden: usize,
    /// Attention heads; divides `hidden` (and `hidden / heads` is a multiple of 4 with rotary positions).
    pub heads: usize,
    /// Height, width of a patch in pixels.
    pub patch_size: [usize; 2],
    /// Height, width of the training input in pixels; multiples of `patch_size`.
    pub image_size: [usize; 2],
    /// `[D]`, with its position added.
    pub cls_token: Vec<f32>,
    /// `[R, D]`, R may be 0.
    pub register_tokens: Array,
    /// `[D, 3, P, P]`
    pub patch_weight: Array,
    /// `[D]`
    pub patch_bias: Vec<f32>,
    /// Of the patches.
    pub position: Position,
    /// All of the encoder, in order.
    pub blocks: Vec<Block>,
    /// L2: the queries join for the last `num_blocks` blocks; 1 ..= blocks.len().
    pub num_blocks: usize,
    /// One per block of the last `num_blocks`, in order.
    pub masking: Vec<Masking>,
    /// `[Q, D]`
    pub queries: Array,
    /// VidEoMT, `[D, D]`: from the query tokens behind the last block, before the norm, to what is added to `queries` in the next frame.
    pub query_updater: Option<Linear>,
    /// The norm before the heads.
    pub norm: Norm,
    /// `[C + 1, D]`, the last row is "no object".
    pub class_head: Linear,
    /// Three `[D, D]` layers with `head_activation` between them.
    pub mask_head: [Linear; 3],
    /// In the mask head and in the scale blocks.
    pub head_activation: Activation,
    /// May be empty.
    pub scale_blocks: Vec<ScaleBlock>,
}

/// A network, its classes, and how to prepare its input.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The weights.
    pub network: Network,
    /// C class names, in class order.
    pub labels: Vec<String>,
    /// Classes that are merged over segments, ascending; `None` = the checkpoint does not tell.
    pub stuff_classes: Option<Vec<usize>>,
    /// What it was trained for; `None` = the checkpoint does not tell.
    pub task: Option<Task>,
    /// Per channel (RGB), in units of pixel value / 255.
    pub image_mean: [f32; 3],
    /// Per channel (RGB), in units of pixel value / 255, above 0.
    pub image_std: [f32; 3],
    /// Those of its image processor, else the reference's.
    pub thresholds: Thresholds,
    /// Lower-case hex SHA-256 of the weight file; of shards, of their contents one after the other in name order.
    pub source_sha256: String,
    /// The published model's name when it is one, else the folder's or file's.
    pub name: String,
    /// The licence that its folder names, one line; `None` = the folder does not tell.
    pub licence: Option<String>,
    /// What the reader had to assume; each a sentence for the user.
    pub warnings: Vec<String>,
}
