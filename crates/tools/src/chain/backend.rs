//! What the description of a network asks of whoever computes it: a small set of operators on maps and tokens.
//!
//! Training implements it with gradients, `convert` with nodes of ONNX, and `weights` without any numbers. So a network is written
//! down once, and what is trained is what runs.
//!
//! Invariants: a batch is the outermost axis of everything and never mixed; every weight is named where it is used, with its shape and
//! with how it starts.

/// How a weight starts when a network is trained from random weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All the same.
    Constant(f32),
    /// Normal with this deviation, cut at two deviations.
    Normal(f32),
    /// Uniform in plus and minus this bound.
    Uniform(f32),
    /// The biases of sampling offsets: the points of each head lie in one direction, one further out than the other (Deformable DETR, Zhu
    /// et al. 2021, appendix A.4). `[heads, levels, points, (x, y)]`
    Directions {
        /// Attention heads.
        heads: usize,
        /// Maps that are sampled.
        levels: usize,
        /// Points per head and map.
        points: usize,
    },
}

impl Init {
    /// Uniform with the variance of Glorot and Bengio (2010).
    pub(super) fn xavier(from: usize, to: usize) -> Init {
        Init::Uniform((6.0 / (from + to) as f32).sqrt())
    }

    /// What PyTorch's linear layers and convolutions start with.
    pub(super) fn fan_in(from: usize) -> Init {
        Init::Uniform(1.0 / (from as f32).sqrt())
    }
}

/// One tensor of the checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Its name in the file.
    pub name: String,
    /// Size of each dimension, the outermost first.
    pub shape: Vec<usize>,
    /// For random weights.
    pub init: Init,
}

impl Weight {
    pub(super) fn new(name: impl Into<String>, shape: &[usize], init: Init) -> Weight {
        Weight { name: name.into(), shape: shape.to_vec(), init }
    }
}

/// `y = weight x + bias`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[rows, from]`; the layer is `to` of the rows.
    pub weight: Weight,
    /// `[rows]`
    pub bias: Option<Weight>,
    /// First of its rows: PyTorch's attention keeps queries, keys and values in one tensor.
    pub start: usize,
    /// Width of the input.
    pub from: usize,
    /// Width of the output.
    pub to: usize,
}

impl Linear {
    pub(super) fn new(name: &str, from: usize, to: usize, init: Init) -> Linear {
        let weight = Weight::new(format!("{name}.weight"), &[to, from], init);
        let bias = Some(Weight::new(format!("{name}.bias"), &[to], Init::Constant(0.0)));
        Linear { weight, bias, start: 0, from, to }
    }
}

/// Scale and shift, `[width]` each: of layer norm, group norm.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[width]`
    pub scale: Weight,
    /// `[width]`
    pub shift: Weight,
    /// Added to the variance.
    pub eps: f32,
}

impl Norm {
    pub(super) fn new(name: &str, width: usize, eps: f32) -> Norm {
        Norm {
            scale: Weight::new(format!("{name}.weight"), &[width], Init::Constant(1.0)),
            shift: Weight::new(format!("{name}.bias"), &[width], Init::Constant(0.0)),
            eps,
        }
    }
}

/// Batch norm by recorded statistics: `(x - mean) / sqrt(variance + eps) * scale + shift`, `[channels]` each. Training does not change the
/// statistics.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    /// Scale, shift and epsilon.
    pub norm: Norm,
    /// `[channels]`
    pub mean: Weight,
    /// `[channels]`
    pub variance: Weight,
}

impl BatchNorm {
    pub(super) fn new(name: &str, channels: usize) -> BatchNorm {
        BatchNorm {
            norm: Norm::new(name, channels, 1e-5),
            mean: Weight::new(format!("{name}.running_mean"), &[channels], Init::Constant(0.0)),
            variance: Weight::new(format!("{name}.running_var"), &[channels], Init::Constant(1.0)),
        }
    }
}

/// A convolution with a square kernel.
#[derive(Debug, Clone)]
pub struct Conv {
    /// `[out, in, k, k]`
    pub weight: Weight,
    /// `[out]`
    pub bias: Option<Weight>,
    /// Batch norm behind it.
    pub norm: Option<BatchNorm>,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
}

impl Conv {
    pub(super) fn kernel(&self) -> usize {
        self.weight.shape[2]
    }
}

/// Windows of a convolution or a pooling along a side.
pub(crate) fn windows(side: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    (side + 2 * padding - kernel) / stride + 1
}

/// `[B, channels, height, width]`, in whatever order of the axes a backend likes.
#[derive(Debug, Clone)]
pub struct Map<V> {
    /// The backend's own.
    pub value: V,
    /// Channels.
    pub channels: usize,
    /// Height, width.
    pub size: [usize; 2],
}

impl<V> Map<V> {
    /// Another map of the same shape.
    pub fn with(&self, value: V) -> Map<V> {
        Map { value, channels: self.channels, size: self.size }
    }

    /// Pixels.
    pub fn area(&self) -> usize {
        self.size[0] * self.size[1]
    }
}

/// `[B, count, width]`.
#[derive(Debug, Clone)]
pub struct Tokens<V> {
    /// The backend's own.
    pub value: V,
    /// Rows.
    pub count: usize,
    /// Columns.
    pub width: usize,
}

impl<V> Tokens<V> {
    /// Other tokens of the same shape.
    pub fn with(&self, value: V) -> Tokens<V> {
        Tokens { value, count: self.count, width: self.width }
    }
}

/// The activation functions of these networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)`, with the error function.
    Gelu,
    /// `max(x, 0)`
    Relu,
}

/// `softmax(q k^T / sqrt(d) + mask) v` for each head, before the output projection.
pub struct Attention<'a, V> {
    /// What queries are made of.
    pub queries: &'a Tokens<V>,
    /// What keys are made of.
    pub keys: &'a Tokens<V>,
    /// What values are made of; as many as keys.
    pub values: &'a Tokens<V>,
    /// Of queries, keys and values.
    pub layers: [&'a Linear; 3],
    /// Attention heads.
    pub heads: usize,
    /// From [`Backend::attention_mask`].
    pub mask: Option<&'a V>,
}

/// Multi-scale deformable attention (Zhu et al. 2021, section 4.1), before the output projection: for each query, head and map, the values at
/// `points` places, bilinearly, weighed.
pub struct Deformable<'a, V> {
    /// Projected values of all maps, one after the other.
    pub values: &'a Tokens<V>,
    /// `[heads, levels, points, (x, y)]` per query, in pixels of the map.
    pub offsets: &'a Tokens<V>,
    /// `[heads, levels * points]` per query, before the softmax.
    pub scores: &'a Tokens<V>,
    /// Where each query looks, (x, y), each 0 to 1; the same in all maps.
    pub reference: &'a [[f32; 2]],
    /// Height, width of each map.
    pub levels: &'a [[usize; 2]],
    /// Attention heads.
    pub heads: usize,
    /// Points per head and map.
    pub points: usize,
}

/// The operators. Each gives the same numbers in all implementations, up to the order of sums.
pub trait Backend {
    /// A tensor, or what stands for it.
    type Value: Clone;
    /// What can go wrong.
    type Error;

    /// The normalized input, `[B, 3, height, width]`.
    fn pixels(&mut self, size: [usize; 2]) -> Result<Map<Self::Value>, Self::Error>;

    /// A convolution, with its batch norm.
    fn conv(&mut self, x: &Map<Self::Value>, conv: &Conv) -> Result<Map<Self::Value>, Self::Error>;

    /// A transposed convolution of 2x2 with stride 2: `[in, out, 2, 2]`.
    fn transposed_conv(&mut self, x: &Map<Self::Value>, weight: &Weight, bias: &Weight) -> Result<Map<Self::Value>, Self::Error>;

    /// A depthwise convolution of 3x3 with padding 1: `[C, 1, 3, 3]`.
    fn depthwise(&mut self, x: &Map<Self::Value>, weight: &Weight, bias: Option<&Weight>) -> Result<Map<Self::Value>, Self::Error>;

    /// The largest value of each window.
    fn max_pool(&mut self, x: &Map<Self::Value>, kernel: usize, stride: usize, padding: usize) -> Result<Map<Self::Value>, Self::Error>;

    /// Batch norm of its own.
    fn batch_norm(&mut self, x: &Map<Self::Value>, norm: &BatchNorm) -> Result<Map<Self::Value>, Self::Error>;

    /// Group norm (Wu and He 2018).
    fn group_norm(&mut self, x: &Map<Self::Value>, norm: &Norm, groups: usize) -> Result<Map<Self::Value>, Self::Error>;

    /// Layer norm over channels.
    fn map_norm(&mut self, x: &Map<Self::Value>, norm: &Norm) -> Result<Map<Self::Value>, Self::Error>;

    /// Bilinear, without antialiasing, pixel centres at halves (PyTorch's `align_corners=False`).
    fn resize(&mut self, x: &Map<Self::Value>, size: [usize; 2]) -> Result<Map<Self::Value>, Self::Error>;

    /// Pixels as tokens, row by row.
    fn to_tokens(&mut self, x: &Map<Self::Value>) -> Result<Tokens<Self::Value>, Self::Error>;

    /// The inverse of [`Backend::to_tokens`].
    fn to_map(&mut self, x: &Tokens<Self::Value>, size: [usize; 2]) -> Result<Map<Self::Value>, Self::Error>;

    /// Tokens one after the other.
    fn concat(&mut self, parts: &[&Tokens<Self::Value>]) -> Result<Tokens<Self::Value>, Self::Error>;

    /// `count` tokens from `start` on.
    fn slice(&mut self, x: &Tokens<Self::Value>, start: usize, count: usize) -> Result<Tokens<Self::Value>, Self::Error>;

    /// A weight as tokens, the same for each image: its last axis is the width.
    fn learned(&mut self, weight: &Weight) -> Result<Tokens<Self::Value>, Self::Error>;

    /// Plus row `row` of a weight `[rows, width]`, on every token.
    fn add_row(&mut self, x: &Tokens<Self::Value>, weight: &Weight, row: usize) -> Result<Tokens<Self::Value>, Self::Error>;

    /// Constants `[count, width]` as tokens, the same for each image; a backend without numbers does not ask for them.
    fn constant(&mut self, values: &dyn Fn() -> Vec<f32>, count: usize, width: usize) -> Result<Tokens<Self::Value>, Self::Error>;

    /// Sum of two of one shape.
    fn add(&mut self, a: &Self::Value, b: &Self::Value) -> Result<Self::Value, Self::Error>;

    /// An activation function, element by element.
    fn activate(&mut self, x: &Self::Value, activation: Activation) -> Result<Self::Value, Self::Error>;

    /// A linear layer.
    fn linear(&mut self, x: &Tokens<Self::Value>, layer: &Linear) -> Result<Tokens<Self::Value>, Self::Error>;

    /// `x + scale * layer(y)`; without `scale`, 1.
    fn residual(
        &mut self,
        x: &Tokens<Self::Value>,
        y: &Tokens<Self::Value>,
        layer: &Linear,
        scale: Option<&Weight>,
    ) -> Result<Tokens<Self::Value>, Self::Error>;

    /// Layer norm.
    fn norm(&mut self, x: &Tokens<Self::Value>, norm: &Norm) -> Result<Tokens<Self::Value>, Self::Error>;

    /// Attention.
    fn attention(&mut self, attention: &Attention<Self::Value>) -> Result<Tokens<Self::Value>, Self::Error>;

    /// Deformable attention.
    fn deformable(&mut self, attention: &Deformable<Self::Value>) -> Result<Tokens<Self::Value>, Self::Error>;

    /// Mask logits `[B, Q, height * width]`: queries times pixels.
    fn mask_logits(&mut self, queries: &Tokens<Self::Value>, pixels: &Map<Self::Value>) -> Result<Tokens<Self::Value>, Self::Error>;

    /// What masked attention adds to its scores (Mask2Former, Cheng et al. 2022, section 3.2.1): nothing where the mask logits, resized
    /// from `from` to `to` as [`Backend::resize`] does, are 0 or more, and nothing for a query whose mask is empty; elsewhere a number
    /// that no score outweighs. Without gradient.
    fn attention_mask(&mut self, logits: &Tokens<Self::Value>, from: [usize; 2], to: [usize; 2]) -> Result<Self::Value, Self::Error>;

    /// Whether the predictions before the last one are wanted, as training does.
    fn wants_all(&self) -> bool;
}
