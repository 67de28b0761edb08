//! Checkpoints of transformers: `config.json` with `model_type` `eomt` (DINOv2), `eomt_dinov3` or `videomt` (DINOv2), and the weights.
//!
//! Keys that `config.json` omits have the defaults of transformers' EomtConfig, EomtDinov3Config and VideomtConfig (5.24). Masks follow
//! transformers' inference: a block of probability 0 keeps the mask of the last block that had one, and `videomt` never masks.
//! Invariant: every number of the configuration is compared with the weights before it is used.

use super::chain::MODEL_TYPE;
use super::common::{self, Attention, Classes, Contents, Facts};
use super::error::CheckpointError;
use super::hf_config::{CLASS_HEAD, Config, MASK_PROBS, QUERY};
use super::hints::Hints;
use super::json::Object;
use super::labels;
use super::network::{Activation, Array, Block, Masking, Mlp, Network, Position, Resampling};
use super::tensors::Tensors;

/// Reads the network.
///
/// # Errors
/// See [`CheckpointError`]; each names the key or tensor.
pub(super) fn read(object: &Object, mut tensors: Tensors, mut hints: Hints) -> Result<Contents, CheckpointError> {
    let (rotary, video) = match object.text("model_type")? {
        Some("eomt") => (false, false),
        Some("eomt_dinov3") => (true, false),
        Some("videomt") => (false, true),
        Some(MODEL_TYPE) => {
            let problem = "is a network with Mask2Former's decoder, which only `convert` reads";
            return Err(CheckpointError::key(&object.file, "model_type", problem));
        }
        _ => {
            let known = "eomt, eomt_dinov3 or videomt (or, to train from, dinov2, dinov2_with_registers or dinov3_vit)";
            return Err(object.wrong("model_type", known));
        }
    };
    let config = Config::read(object, rotary, video)?;
    let ignored = ["criterion.empty_weight", "embeddings.mask_token", "embeddings.position_ids"];
    tensors.ignore(|name| ignored.contains(&name) || name.ends_with("inv_freq"));
    let grid = config.check(&tensors)?;
    let (own_labels, classes) = own_labels(&config, &tensors)?;
    let mut warnings = std::mem::take(&mut tensors.warnings);
    let facts = Facts {
        dinov3: rotary,
        hidden: config.hidden,
        blocks: config.layers,
        num_blocks: config.num_blocks,
        queries: config.queries,
        classes,
        query_tensor: QUERY,
        class_tensor: CLASS_HEAD,
        mask_tensor: MASK_PROBS,
    };
    common::check_preset(&mut hints, &facts, &mut warnings)?;
    let theta = if rotary { Some(theta(object)?) } else { None };
    check_hints(&config, &hints, theta)?;
    let mut classes = common::classes(&hints, Some(own_labels), classes, CLASS_HEAD)?;
    own_kinds(object, &hints, &mut classes)?;
    let network = network(&config, &mut tensors, &hints, grid, theta, &mut warnings)?;
    tensors.finish()?;
    Ok(Contents { network, classes, image_mean: common::IMAGENET_MEAN, image_std: common::IMAGENET_STD, warnings })
}

/// The class names (`LABEL_n` where there are none) and their number.
fn own_labels(config: &Config, tensors: &Tensors) -> Result<(Vec<String>, usize), CheckpointError> {
    let [rows, _] = tensors.dims(CLASS_HEAD)?;
    let labels = config.object.numbered_texts("id2label")?;
    let number = config.object.positive("num_labels")?;
    // transformers uses the length of id2label, else num_labels, else two.
    let default = if labels.is_none() && number.is_none() { Some(2) } else { None };
    for (key, count) in [("id2label", labels.as_ref().map(Vec::len)), ("num_labels", number.or(default))] {
        if let Some(count) = count.filter(|count| count + 1 != rows) {
            let found = format!("has {rows} rows, one for each of {} classes and one for none", rows - 1);
            return Err(CheckpointError::contradiction(&config.object.file, key, format!("for {count} classes"), CLASS_HEAD, found));
        }
    }
    let count = rows - 1;
    Ok((labels.unwrap_or_else(|| labels::unnamed(count)), count))
}

/// Task and stuff classes, if the configuration names them (transformers' own do not). Hints take precedence.
fn own_kinds(object: &Object, hints: &Hints, classes: &mut Classes) -> Result<(), CheckpointError> {
    if let (Some(text), None) = (object.text("task")?, hints.task) {
        classes.task = Some(text.parse().map_err(|_| object.wrong("task", "panoptic, instance or semantic"))?);
    }
    if let (Some(mut stuff), None) = (object.sizes("stuff_classes")?, &hints.stuff_classes) {
        stuff.sort_unstable();
        stuff.dedup();
        if stuff.last().is_some_and(|class| *class >= classes.labels.len()) {
            return Err(object.wrong("stuff_classes", &format!("class numbers below {}", classes.labels.len())));
        }
        classes.stuff = Some(stuff);
    }
    Ok(())
}

/// The base of the rotary frequencies: in `rope_parameters`, before that in `rope_scaling`, or at the top.
pub(super) fn theta(object: &Object) -> Result<f32, CheckpointError> {
    let nested = match object.object("rope_scaling")?.filter(|nested| !nested.map.is_empty()) {
        Some(nested) => Some(nested),
        None => object.object("rope_parameters")?,
    };
    let mut theta = None;
    if let Some(nested) = nested {
        for key in ["rope_type", "type"] {
            if nested.text(key)?.is_some_and(|kind| kind != "default") {
                return Err(nested.wrong(key, "default"));
            }
        }
        theta = nested.float("rope_theta")?;
    }
    Ok(theta.or(object.float("rope_theta")?).unwrap_or(100.0))
}

/// Hints may repeat the configuration, not change it.
fn check_hints(config: &Config, hints: &Hints, theta: Option<f32>) -> Result<(), CheckpointError> {
    let key = "config.json";
    hints.agree("image_size", hints.image_size, config.image, key)?;
    hints.agree("patch_size", hints.patch_size, config.patch, key)?;
    hints.agree("num_attention_heads", hints.heads, config.heads, key)?;
    hints.agree("num_blocks", hints.num_blocks, config.num_blocks, key)?;
    hints.agree("num_queries", hints.num_queries, config.queries, key)?;
    hints.agree("num_register_tokens", hints.registers, config.registers, key)?;
    hints.agree("layer_norm_eps", hints.eps, config.eps, key)?;
    if let Some(theta) = theta {
        hints.agree("rope_theta", hints.theta, theta, key)?;
    }
    if config.video {
        hints.agree("masked_attention", hints.masked_attention, false, "videomt, which never masks,")?;
    }
    hints.agree("delta", hints.delta, false, key)
}

fn network(
    config: &Config,
    tensors: &mut Tensors,
    hints: &Hints,
    grid: [usize; 2],
    theta: Option<f32>,
    warnings: &mut Vec<String>,
) -> Result<Network, CheckpointError> {
    let hidden = config.hidden;
    let probs = tensors.vector(MASK_PROBS, config.num_blocks)?;
    if hints.masked_attention != Some(false) && !config.video {
        common::warn_of_fractions(&probs, warnings);
    }
    let own_masking = || if config.video { vec![Masking::Off; config.num_blocks] } else { masking(&probs) };
    let blocks = (0..config.layers).map(|index| block(config, tensors, index)).collect::<Result<Vec<_>, _>>()?;
    let position = match theta {
        Some(theta) => Position::Rotary { theta },
        None => {
            let table = tensors.array("embeddings.position_embeddings.weight", &[grid[0] * grid[1], hidden])?;
            Position::Learned { grid, table, resampling: Resampling::Antialiased }
        }
    };
    let register_tokens = match tensors.has("embeddings.register_tokens") {
        true => common::tokens(tensors, "embeddings.register_tokens", config.registers, hidden)?,
        false => Array { shape: vec![0, hidden], data: vec![] },
    };
    let [rows, _] = tensors.dims(CLASS_HEAD)?;
    let patch = config.patch_tensor();
    let scale = |tensors: &mut Tensors, index| {
        common::scale_block(tensors, &format!("upscale_block.block.{index}"), ("layernorm2d", common::SCALE_BLOCK_EPS), hidden)
    };
    Ok(Network {
        hidden,
        heads: config.heads,
        patch_size: config.patch,
        image_size: config.image,
        cls_token: common::tokens(tensors, "embeddings.cls_token", 1, hidden)?.data,
        register_tokens,
        patch_weight: tensors.array(&format!("{patch}.weight"), &[hidden, 3, config.patch[0], config.patch[1]])?,
        patch_bias: tensors.vector(&format!("{patch}.bias"), hidden)?,
        position,
        blocks,
        num_blocks: config.num_blocks,
        masking: common::masking(hints, config.num_blocks, own_masking),
        queries: tensors.array(QUERY, &[config.queries, hidden])?,
        query_updater: config.video.then(|| tensors.linear("query_updater", hidden, hidden, true)).transpose()?,
        norm: tensors.norm("layernorm", hidden, config.eps)?,
        class_head: tensors.linear("class_predictor", rows, hidden, true)?,
        mask_head: [
            tensors.linear("mask_head.fc1", hidden, hidden, true)?,
            tensors.linear("mask_head.fc2", hidden, hidden, true)?,
            tensors.linear("mask_head.fc3", hidden, hidden, true)?,
        ],
        head_activation: config.activation,
        scale_blocks: (0..config.upscale_blocks).map(|index| scale(tensors, index)).collect::<Result<_, _>>()?,
    })
}

/// transformers keeps its mask variable over blocks of probability 0, so these go on with the last mask.
fn masking(probs: &[f32]) -> Vec<Masking> {
    let mut none = Masking::Off;
    let step = |prob: &f32| match *prob > 0.0 {
        true => {
            none = Masking::Previous;
            Masking::Own
        }
        false => none,
    };
    probs.iter().map(step).collect()
}

/// Block `index`, under the names of EoMT.
pub(super) fn block(config: &Config, tensors: &mut Tensors, index: usize) -> Result<Block, CheckpointError> {
    let prefix = format!("layers.{index}");
    let mlp_prefix = format!("{prefix}.mlp");
    if !config.rotary {
        // only a backbone without heads may say so
        let bias = config.object.flag("qkv_bias")?.unwrap_or(true);
        let attention = Attention { out: "out_proj", bias: [bias, bias, bias, true] };
        return common::block(tensors, &prefix, config.hidden, config.eps, attention, |tensors| mlp(config, tensors, &mlp_prefix));
    }
    let flag = |key: &str, default: bool| config.object.flag(key).map(|flag| flag.unwrap_or(default));
    let bias = [flag("query_bias", true)?, flag("key_bias", false)?, flag("value_bias", true)?, flag("proj_bias", true)?];
    let mlp_bias = flag("mlp_bias", true)?;
    let inner = config.object.positive("intermediate_size")?.unwrap_or(4096);
    let name = format!("{mlp_prefix}.up_proj.weight");
    config.agree("intermediate_size", inner, tensors.dims::<2>(&name)?[0], &name, "rows")?;
    common::block(tensors, &prefix, config.hidden, config.eps, Attention { out: "o_proj", bias }, |tensors| {
        common::projected_mlp(tensors, &mlp_prefix, [config.hidden, inner], config.gated, mlp_bias, config.activation)
    })
}

/// The MLP of `eomt`; SwiGLU is named `gate_proj`, `up_proj`, `down_proj`, before transformers 5 packed as `weights_in`, `weights_out`.
fn mlp(config: &Config, tensors: &mut Tensors, prefix: &str) -> Result<Mlp, CheckpointError> {
    let hidden = config.hidden;
    let ratio = config.object.number("mlp_ratio")?.unwrap_or(4.0);
    let inner = (hidden as f64 * ratio) as usize;
    if !config.gated {
        let name = format!("{prefix}.fc1.weight");
        let rows = tensors.dims::<2>(&name)?[0];
        agree_ratio(config, ratio, inner, rows, &name)?;
        let up = tensors.linear(&format!("{prefix}.fc1"), rows, hidden, true)?;
        let down = tensors.linear(&format!("{prefix}.fc2"), hidden, rows, true)?;
        return Ok(Mlp::Plain { up, down, activation: config.activation });
    }
    // Two thirds of the plain width, rounded up to a multiple of eight.
    let inner = (inner * 2 / 3).div_ceil(8) * 8;
    let packed = format!("{prefix}.weights_in.weight");
    let activation = Activation::Silu;
    if tensors.has(&packed) {
        let rows = tensors.dims::<2>(&packed)?[0];
        agree_ratio(config, ratio, 2 * inner, rows, &packed)?;
        let [gate, up] = common::split_rows(tensors.linear(&format!("{prefix}.weights_in"), rows, hidden, true)?);
        let down = tensors.linear(&format!("{prefix}.weights_out"), hidden, inner, true)?;
        return Ok(Mlp::Gated { gate, up, down, activation });
    }
    let name = format!("{prefix}.gate_proj.weight");
    agree_ratio(config, ratio, inner, tensors.dims::<2>(&name)?[0], &name)?;
    common::projected_mlp(tensors, prefix, [hidden, inner], true, true, activation)
}

fn agree_ratio(config: &Config, ratio: f64, inner: usize, rows: usize, tensor: &str) -> Result<(), CheckpointError> {
    if inner == rows {
        return Ok(());
    }
    let found = format!("has {rows} rows, that ratio makes {inner}");
    Err(CheckpointError::contradiction(&config.object.file, "mlp_ratio", ratio, tensor, found))
}
