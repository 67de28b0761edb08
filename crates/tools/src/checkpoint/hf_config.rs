//! `config.json` of transformers' EoMT, with the defaults of EomtConfig, EomtDinov3Config and VideomtConfig, against the weights.

use super::common;
use super::error::CheckpointError;
use super::json::Object;
use super::network::Activation;
use super::tensors::Tensors;

pub(super) const QUERY: &str = "query.weight";
pub(super) const CLASS_HEAD: &str = "class_predictor.weight";
pub(super) const MASK_PROBS: &str = "attn_mask_probs";

/// The numbers of `config.json`, with defaults; not yet compared with the weights.
pub(super) struct Config<'a> {
    pub object: &'a Object,
    pub rotary: bool,
    /// Queries go on from frame to frame.
    pub video: bool,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub queries: usize,
    pub registers: usize,
    pub num_blocks: usize,
    pub upscale_blocks: usize,
    pub image: [usize; 2],
    pub patch: [usize; 2],
    pub eps: f32,
    pub activation: Activation,
    pub gated: bool,
}

impl Config<'_> {
    pub fn read(object: &Object, rotary: bool, video: bool) -> Result<Config<'_>, CheckpointError> {
        let name = object.text("hidden_act")?.unwrap_or("gelu");
        let activations = "an activation that this program knows (gelu, gelu_pytorch_tanh, relu, silu, quick_gelu)";
        if object.size("num_channels")?.is_some_and(|channels| channels != 3) {
            return Err(object.wrong("num_channels", "3"));
        }
        Ok(Config {
            object,
            rotary,
            video,
            hidden: object.positive("hidden_size")?.unwrap_or(1024),
            layers: object.positive("num_hidden_layers")?.unwrap_or(24),
            heads: object.positive("num_attention_heads")?.unwrap_or(16),
            queries: object.positive("num_queries")?.unwrap_or(200),
            registers: object.size("num_register_tokens")?.unwrap_or(4),
            num_blocks: object.positive("num_blocks")?.unwrap_or(4),
            upscale_blocks: object.size("num_upscale_blocks")?.unwrap_or(2),
            image: object.pair("image_size")?.unwrap_or([640, 640]),
            patch: object.pair("patch_size")?.unwrap_or([16, 16]),
            eps: object.float("layer_norm_eps")?.unwrap_or(1e-6),
            activation: Activation::named(name).ok_or_else(|| object.wrong("hidden_act", activations))?,
            gated: object.flag(if rotary { "use_gated_mlp" } else { "use_swiglu_ffn" })?.unwrap_or(false),
        })
    }

    /// Compares the `value` of `key` with the number that `tensor` shows.
    ///
    /// # Errors
    /// When they differ.
    pub fn agree(&self, key: &str, value: usize, found: usize, tensor: &str, unit: &str) -> Result<(), CheckpointError> {
        if value == found {
            return Ok(());
        }
        let default = if self.object.map.contains_key(key) { "" } else { " (its default, the file does not say)" };
        Err(CheckpointError::contradiction(&self.object.file, key, format!("{value}{default}"), tensor, format!("has {found} {unit}")))
    }

    /// Compares every number with the shapes of the weights.
    pub fn check(&self, tensors: &Tensors) -> Result<[usize; 2], CheckpointError> {
        let [queries, _] = tensors.dims(QUERY)?;
        let grid = self.check_encoder(tensors, QUERY)?;
        self.agree("num_queries", self.queries, queries, QUERY, "rows")?;
        let [probs] = tensors.dims(MASK_PROBS)?;
        self.agree("num_blocks", self.num_blocks, probs, MASK_PROBS, "entries")?;
        if self.num_blocks > self.layers {
            let problem = format!("is {}, more than the {} of num_hidden_layers", self.num_blocks, self.layers);
            return Err(CheckpointError::key(&self.object.file, "num_blocks", problem));
        }
        if !self.rotary {
            let name = "embeddings.position_embeddings.weight";
            let [positions, _] = tensors.dims(name)?;
            if positions != grid[0] * grid[1] {
                let found = format!("has {positions} positions, not {} x {}", grid[0], grid[1]);
                return Err(CheckpointError::contradiction(&self.object.file, "image_size", format!("{:?}", self.image), name, found));
            }
        }
        let scale_blocks = tensors.count("upscale_block.block.");
        let last = format!("upscale_block.block.{}.conv1.weight", scale_blocks.max(self.upscale_blocks).saturating_sub(1));
        self.agree_count("num_upscale_blocks", self.upscale_blocks, scale_blocks, &last)?;
        Ok(grid)
    }

    /// Compares what belongs to the encoder with the shapes of its weights, all but the table of positions; `tensor` has a column for each of the
    /// values of a token. Gives the grid of the input.
    ///
    /// # Errors
    /// For the first number that differs.
    pub fn check_encoder(&self, tensors: &Tensors, tensor: &str) -> Result<[usize; 2], CheckpointError> {
        let hidden = tensors.shape(tensor)?.last().copied().unwrap_or(0);
        self.agree("hidden_size", self.hidden, hidden, tensor, "columns")?;
        self.check_layers(tensors)?;
        common::check_heads(&self.object.file, self.heads, self.hidden, self.rotary, tensor)?;
        let name = "embeddings.register_tokens";
        match tensors.shape(name) {
            Err(_) if self.registers == 0 => {}
            shape => self.agree("num_register_tokens", self.registers, shape?.get(1).copied().unwrap_or(0), name, "tokens")?,
        }
        let name = self.patch_tensor();
        let [_, _, height, width] = tensors.dims(&format!("{name}.weight"))?;
        self.agree("patch_size", self.patch[0], height, &format!("{name}.weight"), "rows of pixels")?;
        self.agree("patch_size", self.patch[1], width, &format!("{name}.weight"), "columns of pixels")?;
        common::check_grid(&self.object.file, self.image, self.patch)
    }

    fn check_layers(&self, tensors: &Tensors) -> Result<(), CheckpointError> {
        let layers = tensors.count("layers.");
        let last = format!("layers.{}.norm1.weight", layers.max(self.layers) - 1);
        self.agree_count("num_hidden_layers", self.layers, layers, &last)
    }

    /// For counts of numbered tensors: `last` is the higher of both counts, whose tensors one side lacks.
    fn agree_count(&self, key: &str, value: usize, found: usize, last: &str) -> Result<(), CheckpointError> {
        if value == found {
            return Ok(());
        }
        let presence = if found > value { "is there" } else { "is not there" };
        let found = format!("{presence}; the weights hold {found}");
        Err(CheckpointError::contradiction(&self.object.file, key, value, last, found))
    }

    pub fn patch_tensor(&self) -> &'static str {
        if self.rotary { "embeddings.patch_embeddings" } else { "embeddings.patch_embeddings.projection" }
    }
}
