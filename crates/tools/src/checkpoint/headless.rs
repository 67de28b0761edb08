//! Backbones without heads, to train a network from: DINOv2, DINOv2 with registers and DINOv3, as transformers saves them or as Meta publishes
//! their states.
//!
//! ```no_run
//! use eomt_edge_tools::checkpoint::read_headless;
//! let backbone = read_headless("dinov3-vits16-pretrain-lvd1689m".as_ref())?.expect("a backbone");
//! assert_eq!(backbone.backbone.blocks.len(), 12);
//! # Ok::<(), eomt_edge_tools::checkpoint::CheckpointError>(())
//! ```
//!
//! ```text
//! config.json (dinov2, dinov2_with_registers, dinov3_vit) + weights ─▶ names of EoMT ─▶ hf ───────────┐
//! .pth of Meta (`blocks.0.attn.qkv.weight` ..) ─▶ names of the authors' networks ─▶ timm, lightly ────┴─▶ Headless
//! ```
//!
//! Defaults are those of transformers' Dinov2Config, Dinov2WithRegistersConfig and DINOv3ViTConfig (5.24). Invariants: as of a whole checkpoint,
//! every tensor is used or known to be useless. Refuses: to make heads, which are the business of training.

use std::path::Path;

use eomt_edge_host::{bounds, files};
use serde_json::{Value, json};

use super::backbone::{self, BACKBONE, Backbone};
use super::common;
use super::error::{CheckpointError, io_error};
use super::hf;
use super::hf_config::Config;
use super::hints::Hints;
use super::json::Object;
use super::lightly;
use super::network::{Activation, Array, Norm, Position, Resampling};
use super::tensors::Tensors;
use super::timm::{self, Place};
use super::{licence, weights};

/// The side of Meta's pre-training pictures, where nothing else is said.
const IMAGE: usize = 224;
/// Prefixes of transformers' models with another head than ours, and of Meta's training states.
const WRAPPERS: [&str; 6] = ["model.", "dinov2.", "dinov2_with_registers.", "dinov3_vit.", "backbone.", "teacher."];

/// A backbone, its last norm, and how to prepare its input.
#[derive(Debug, Clone, PartialEq)]
pub struct Headless {
    /// Tokens and blocks.
    pub backbone: Backbone,
    /// Behind the last block.
    pub norm: Norm,
    /// In its MLPs, and so in the heads that training adds.
    pub activation: Activation,
    /// Per channel (RGB), in units of pixel value / 255.
    pub image_mean: [f32; 3],
    /// Per channel (RGB), in units of pixel value / 255, above 0.
    pub image_std: [f32; 3],
    /// Lower-case hex SHA-256 of the weight file, as of a [`super::Checkpoint`].
    pub source_sha256: String,
    /// The licence that its folder names, one line; `None` = the folder does not tell.
    pub licence: Option<String>,
}

/// The kinds of configurations.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Dinov2,
    Dinov2WithRegisters,
    Dinov3,
}

impl Kind {
    fn of(model_type: &str) -> Option<Kind> {
        Some(match model_type {
            "dinov2" => Kind::Dinov2,
            "dinov2_with_registers" => Kind::Dinov2WithRegisters,
            "dinov3_vit" => Kind::Dinov3,
            _ => return None,
        })
    }

    /// What transformers' configuration means where it is silent. The defaults of EoMT are others.
    fn defaults(self) -> Value {
        match self {
            Kind::Dinov2 => json!({
                "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": IMAGE, "patch_size": 14,
                "num_register_tokens": 0, "layer_norm_eps": 1e-6,
            }),
            Kind::Dinov2WithRegisters => json!({
                "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": IMAGE, "patch_size": 16,
                "num_register_tokens": 4, "layer_norm_eps": 1e-6,
            }),
            Kind::Dinov3 => json!({
                "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": IMAGE, "patch_size": 16,
                "num_register_tokens": 0, "layer_norm_eps": 1e-5, "intermediate_size": 1536,
            }),
        }
    }

    /// The name in EoMT of the tensor that the backbone calls `name`.
    fn rename(self, name: &str) -> String {
        let name = unwrapped(name);
        match self {
            Kind::Dinov2 | Kind::Dinov2WithRegisters => {
                let name = name.strip_prefix("encoder.layer.").map_or_else(|| name.to_owned(), |rest| format!("layers.{rest}"));
                let parts = [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")];
                parts
                    .into_iter()
                    .fold(name, |name, (old, new)| name.replace(&format!(".attention.attention.{old}."), &format!(".attention.{new}.")))
                    .replace(".attention.output.dense.", ".attention.out_proj.")
            }
            Kind::Dinov3 => match (name.strip_prefix("layer."), name.strip_prefix("norm.")) {
                (Some(rest), _) => format!("layers.{rest}"),
                (_, Some(rest)) => format!("layernorm.{rest}"),
                _ => name.to_owned(),
            },
        }
    }
}

fn unwrapped(mut name: &str) -> &str {
    while let Some(rest) = WRAPPERS.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name
}

/// What a path holds, if that is a backbone without heads.
enum Found {
    Transformers(Kind, Object),
    Meta,
}

/// What `config` beside the weights, or else the names of the tensors, say.
///
/// # Errors
/// When config.json is broken.
fn find(config: &Path, tensors: &Tensors) -> Result<Option<Found>, CheckpointError> {
    if config.is_file() {
        let object = Object::read(config)?;
        if let Some(kind) = object.text("model_type")?.and_then(Kind::of) {
            return Ok(Some(Found::Transformers(kind, object)));
        }
        if object.map.contains_key("model_type") {
            return Ok(None);
        }
    }
    let plain: Vec<&str> = tensors.entries.keys().map(|name| unwrapped(name)).collect();
    let has = |wanted: &str| plain.contains(&wanted);
    let blocks = plain.iter().any(|name| name.starts_with("blocks.") && name.ends_with(".attn.qkv.weight"));
    let headed = plain.iter().any(|name| name.starts_with("class_head.") || name.starts_with("q.") || name.starts_with("queries."));
    Ok((has("cls_token") && has("patch_embed.proj.weight") && blocks && !headed).then_some(Found::Meta))
}

/// One sentence for who wants to use a backbone as a network; `None` when it is none.
///
/// # Errors
/// When config.json is broken.
pub(super) fn refusal(path: &Path, config: &Path, tensors: &Tensors) -> Result<Option<CheckpointError>, CheckpointError> {
    Ok(find(config, tensors)?.map(|_| {
        let shown = path.display();
        let problem = format!(
            "it is a backbone without queries and heads, which segments nothing yet; train it first \
             (`eomt-edge train -o RUN --from {shown} --images DIR --instances FILE`), then convert RUN"
        );
        CheckpointError::layout(path, problem)
    }))
}

/// Reads a backbone without heads: a folder of transformers (`config.json` with `model_type` `dinov2`, `dinov2_with_registers` or `dinov3_vit`, and the
/// weights), or a state of Meta's (`dinov2_vits14_reg4_pretrain.pth`). `None`: the path holds something else, for [`super::read`].
///
/// # Errors
/// [`CheckpointError`]: one sentence that names the file and the key or tensor.
pub fn read_headless(path: &Path) -> Result<Option<Headless>, CheckpointError> {
    let is_dir = std::fs::metadata(path).map_err(io_error(path))?.is_dir();
    let (dir, file) = if is_dir { (path.to_path_buf(), weights::find(path)?) } else { (path.with_file_name(""), path.to_path_buf()) };
    let mut tensors = weights::open_network(&file, None)?;
    let Some(found) = find(&dir.join("config.json"), &tensors)? else { return Ok(None) };
    let source_sha256 = weights::sha256(&tensors)?;
    let hints = Hints { file: path.into(), ..Hints::default() };
    let (backbone, norm, activation) = match &found {
        Found::Transformers(kind, object) => of_transformers(*kind, object, tensors)?,
        Found::Meta => {
            tensors.rename(|name| format!("backbone.{}", unwrapped(name)));
            of_meta(tensors, &hints)?
        }
    };
    let [image_mean, image_std] = normalization(&dir)?;
    let licence = licence::of_folder(&dir)?;
    Ok(Some(Headless { backbone, norm, activation, image_mean, image_std, source_sha256, licence }))
}

fn of_transformers(kind: Kind, object: &Object, mut tensors: Tensors) -> Result<(Backbone, Norm, Activation), CheckpointError> {
    let mut object = Object { file: object.file.clone(), map: object.map.clone() };
    if let Value::Object(defaults) = kind.defaults() {
        for (key, value) in defaults {
            object.map.entry(key).or_insert(value);
        }
    }
    let rotary = kind == Kind::Dinov3;
    let config = Config::read(&object, rotary, false)?;
    tensors.rename(|name| kind.rename(name));
    tensors.ignore(|name| name == "embeddings.mask_token" || name.starts_with("classifier.") || name.ends_with("inv_freq"));
    let grid = config.check_encoder(&tensors, "embeddings.cls_token")?;
    let hidden = config.hidden;
    let mut cls_token = common::tokens(&mut tensors, "embeddings.cls_token", 1, hidden)?.data;
    let position = if rotary {
        Position::Rotary { theta: hf::theta(&object)? }
    } else {
        // The class token's position is the same in every picture: it is added once, here.
        let mut table = common::tokens(&mut tensors, "embeddings.position_embeddings", 1 + grid[0] * grid[1], hidden)?;
        let rest = table.data.split_off(hidden);
        cls_token.iter_mut().zip(&table.data).for_each(|(token, position)| *token += position);
        let resampling = if kind == Kind::Dinov2 { Resampling::Plain { offset: 0.0 } } else { Resampling::Antialiased };
        Position::Learned { grid, table: Array { shape: vec![grid[0] * grid[1], hidden], data: rest }, resampling }
    };
    let register_tokens = match tensors.has("embeddings.register_tokens") {
        true => common::tokens(&mut tensors, "embeddings.register_tokens", config.registers, hidden)?,
        false => Array { shape: vec![0, hidden], data: vec![] },
    };
    let patch = config.patch_tensor();
    let backbone = Backbone {
        patch_size: config.patch,
        image_size: config.image,
        cls_token,
        register_tokens,
        patch_weight: tensors.array(&format!("{patch}.weight"), &[hidden, 3, config.patch[0], config.patch[1]])?,
        patch_bias: tensors.vector(&format!("{patch}.bias"), hidden)?,
        position,
        blocks: (0..config.layers).map(|index| hf::block(&config, &mut tensors, index)).collect::<Result<_, _>>()?,
        eps: config.eps,
        heads: config.heads,
    };
    let norm = tensors.norm("layernorm", hidden, config.eps)?;
    let activation = config.activation;
    tensors.finish_backbone()?;
    Ok((backbone, norm, activation))
}

/// Meta's names, below `backbone.`.
fn of_meta(mut tensors: Tensors, hints: &Hints) -> Result<(Backbone, Norm, Activation), CheckpointError> {
    let packed = tensors.entries.keys().any(|name| name.contains(".mlp.w12."));
    tensors.rename(|name| lightly::authors_name(name, packed));
    let unused = ["mask_token", "cls_norm.", "local_cls_norm.", "head."].map(|name| format!("{BACKBONE}{name}"));
    tensors.ignore(|name| unused.iter().any(|unused| name.starts_with(unused)));
    let [_, _, hidden] = tensors.dims(&format!("{BACKBONE}cls_token"))?;
    let size = [hidden, tensors.count(&format!("{BACKBONE}blocks."))];
    let rotary = tensors.has(&format!("{BACKBONE}rope_embed.periods"));
    // transformers' configurations of DINOv3 say one activation for gates and heads
    let gated = tensors.entries.keys().any(|name| name.ends_with(".mlp.w1.weight"));
    let activation = if rotary && gated { Activation::Silu } else { Activation::Gelu };
    let backbone = if rotary {
        lightly::dinov3(&mut tensors, hints, size, [IMAGE; 2])?
    } else {
        let heads = backbone::heads(&tensors, hints, hidden, false)?;
        let place = place(&tensors)?;
        timm::backbone(&mut tensors, hints, size, heads, place)?
    };
    let norm = tensors.norm(&format!("{BACKBONE}norm"), hidden, backbone.eps)?;
    tensors.finish_backbone()?;
    Ok((backbone, norm, activation))
}

/// The table of pre-training: square, after the position of the class token.
fn place(tensors: &Tensors) -> Result<Place, CheckpointError> {
    let [_, _, height, width] = tensors.dims(&format!("{BACKBONE}patch_embed.proj.weight"))?;
    let name = format!("{BACKBONE}pos_embed");
    let [_, positions, _] = tensors.dims(&name)?;
    let side = (positions - 1).isqrt();
    if side == 0 || side * side != positions - 1 {
        let problem = format!("tensor 'pos_embed' has {positions} positions, expected one more than a square number");
        return Err(CheckpointError::layout(&tensors.path, problem));
    }
    let registers = tensors.has(&format!("{BACKBONE}reg_token"));
    let resampling = if registers { Resampling::Antialiased } else { Resampling::Plain { offset: 0.1 } };
    Ok(Place { grid: [side, side], prefix: 1, image_size: [side * height, side * width], resampling })
}

/// Mean and standard deviation of `preprocessor_config.json`, else ImageNet's. All else in it is of another network's pictures.
fn normalization(dir: &Path) -> Result<[[f32; 3]; 2], CheckpointError> {
    let file = dir.join("preprocessor_config.json");
    if !file.is_file() {
        return Ok([common::IMAGENET_MEAN, common::IMAGENET_STD]);
    }
    let text = files::read_text(&file, &bounds::JSON).map_err(io_error(&file))?;
    let config: Value =
        serde_json::from_str(&text).map_err(|error| CheckpointError::damaged(&file, format!("it is not JSON ({error})")))?;
    let triple = |key: &str, usual: [f32; 3]| {
        let Some(value) = config.get(key).filter(|value| !value.is_null()) else { return Ok(usual) };
        let numbers: Option<Vec<f32>> = value.as_array().and_then(|all| all.iter().map(|one| one.as_f64().map(|one| one as f32)).collect());
        let numbers = numbers.and_then(|numbers| <[f32; 3]>::try_from(numbers).ok());
        numbers
            .filter(|numbers| numbers.iter().all(|one| one.is_finite() && (key == "image_mean" || *one > 0.0)))
            .ok_or_else(|| CheckpointError::key(&file, key, "is no list of three numbers for red, green and blue"))
    };
    Ok([triple("image_mean", common::IMAGENET_MEAN)?, triple("image_std", common::IMAGENET_STD)?])
}
