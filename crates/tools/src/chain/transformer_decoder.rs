//! Mask2Former's transformer decoder (Cheng et al. 2022, section 3.2.1): queries that attend to one map after the other inside of the masks
//! that they predicted before, then to each other; as transformers' `Mask2FormerTransformerModule`, over three maps or one.

use std::f32::consts::TAU;

use super::backend::{Activation, Attention, Backend, Init, Linear, Map, Norm, Tokens, Weight};
use super::pyramid::projection;
use super::{EPS, Features, Prediction, Sizes};

const NAME: &str = "transformer_module";

/// Predictions before the first layer and behind each, or the last one.
pub(super) fn run<B: Backend>(
    backend: &mut B,
    sizes: &Sizes,
    features: &Features<B::Value>,
) -> Result<Vec<Prediction<B::Value>>, B::Error> {
    let d = sizes.decoder_width;
    let learned = |part: &str| Weight::new(format!("{NAME}.{part}.weight"), &[sizes.queries, d], Init::Normal(1.0));
    let (keys, values) = memory(backend, sizes, &features.scales)?;
    let positions = backend.learned(&learned("queries_embedder"))?;
    let mut x = backend.learned(&learned("queries_features"))?;
    let mut predictions = Vec::new();
    for index in 0..=sizes.decoder_layers {
        let last = index == sizes.decoder_layers;
        let normed = backend.norm(&x, &Norm::new(&format!("{NAME}.decoder.layernorm"), d, EPS))?;
        let masks = predict_masks(backend, &normed, &features.masks)?;
        let mut mask = None;
        if !last {
            mask = Some(backend.attention_mask(&masks, features.masks.size, features.scales[index % keys.len()].size)?);
        }
        if last || backend.wants_all() {
            let head = Linear::new("class_predictor", d, sizes.classes + 1, Init::fan_in(d));
            predictions.push(Prediction { classes: backend.linear(&normed, &head)?, masks });
        }
        if let Some(mask) = mask {
            let level = index % keys.len();
            x = layer(backend, sizes, index, &x, &positions, (&keys[level], &values[level], &mask))?;
        }
    }
    Ok(predictions)
}

/// Keys (with positions) and values of each map.
#[expect(clippy::type_complexity, reason = "two lists, named in one line of documentation")]
fn memory<B: Backend>(
    backend: &mut B,
    sizes: &Sizes,
    maps: &[Map<B::Value>],
) -> Result<(Vec<Tokens<B::Value>>, Vec<Tokens<B::Value>>), B::Error> {
    let d = sizes.decoder_width;
    let rows = Weight::new(format!("{NAME}.level_embed.weight"), &[maps.len(), d], Init::Normal(1.0));
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for (row, map) in maps.iter().enumerate() {
        // transformers has no layer where the widths are equal already
        let map = if map.channels == d {
            map.clone()
        } else {
            backend.conv(map, &projection(&format!("{NAME}.input_projections.{row}"), map.channels, d))?
        };
        let tokens = backend.to_tokens(&map)?;
        let value = backend.add_row(&tokens, &rows, row)?;
        let positions = backend.constant(&|| sine_positions(map.size, d), value.count, d)?;
        let key = backend.add(&value.value, &positions.value)?;
        keys.push(value.with(key));
        values.push(value);
    }
    Ok((keys, values))
}

/// Masked attention to a map, attention among the queries, MLP; norms behind the sums.
fn layer<B: Backend>(
    backend: &mut B,
    sizes: &Sizes,
    index: usize,
    x: &Tokens<B::Value>,
    positions: &Tokens<B::Value>,
    (keys, values, mask): (&Tokens<B::Value>, &Tokens<B::Value>, &B::Value),
) -> Result<Tokens<B::Value>, B::Error> {
    let (d, heads, inner) = (sizes.decoder_width, sizes.decoder_heads, sizes.decoder_inner);
    let name = |part: &str| format!("{NAME}.decoder.layers.{index}.{part}");
    let dense = |part: &str, from, to| Linear::new(&name(part), from, to, Init::xavier(from, to));
    let placed = backend.add(&x.value, &positions.value)?;
    let packed = [0, d, 2 * d].map(|start| packed(&name("cross_attn"), d, start));
    let queries = x.with(placed);
    let attended = backend.attention(&Attention { queries: &queries, keys, values, layers: packed.each_ref(), heads, mask: Some(mask) })?;
    let x = backend.residual(x, &attended, &dense("cross_attn.out_proj", d, d), None)?;
    let x = backend.norm(&x, &Norm::new(&name("cross_attn_layer_norm"), d, EPS))?;
    let placed = backend.add(&x.value, &positions.value)?;
    let placed = x.with(placed);
    let layers = ["q_proj", "k_proj", "v_proj"].map(|part| dense(&format!("self_attn.{part}"), d, d));
    let attended =
        backend.attention(&Attention { queries: &placed, keys: &placed, values: &x, layers: layers.each_ref(), heads, mask: None })?;
    let x = backend.residual(&x, &attended, &dense("self_attn.out_proj", d, d), None)?;
    let x = backend.norm(&x, &Norm::new(&name("self_attn_layer_norm"), d, EPS))?;
    let wide = backend.linear(&x, &dense("fc1", d, inner))?;
    let active = backend.activate(&wide.value, Activation::Relu)?;
    let x = backend.residual(&x, &wide.with(active), &dense("fc2", inner, d), None)?;
    backend.norm(&x, &Norm::new(&name("final_layer_norm"), d, EPS))
}

/// Queries, keys or values of `torch.nn.MultiheadAttention`.
fn packed(name: &str, d: usize, start: usize) -> Linear {
    Linear {
        weight: Weight::new(format!("{name}.in_proj_weight"), &[3 * d, d], Init::xavier(d, 3 * d)),
        bias: Some(Weight::new(format!("{name}.in_proj_bias"), &[3 * d], Init::Constant(0.0))),
        start,
        from: d,
        to: d,
    }
}

/// Mask embeddings times mask features.
fn predict_masks<B: Backend>(backend: &mut B, x: &Tokens<B::Value>, features: &Map<B::Value>) -> Result<Tokens<B::Value>, B::Error> {
    let d = x.width;
    let mut hidden = x.clone();
    for index in 0..3 {
        let to = if index == 2 { features.channels } else { d };
        let name = format!("{NAME}.decoder.mask_predictor.mask_embedder.{index}.0");
        hidden = backend.linear(&hidden, &Linear::new(&name, d, to, Init::fan_in(d)))?;
        if index < 2 {
            let active = backend.activate(&hidden.value, Activation::Relu)?;
            hidden = hidden.with(active);
        }
    }
    backend.mask_logits(&hidden, features)
}

/// Sine positions of a map, `[height * width, width]`: the first half for y, the second for x; sines and cosines in turn, of the pixel's
/// number (from 1) times 2 π through the number of pixels, times `10000^(-2 k / (width / 2))` (DETR, Carion et al. 2020, appendix A.4).
pub(super) fn sine_positions([height, width]: [usize; 2], channels: usize) -> Vec<f32> {
    let half = channels / 2;
    let wave = |at: usize, count: usize, k: usize| {
        let place = (at + 1) as f32 / (count as f32 + 1e-6) * TAU;
        let angle = place / 10_000f32.powf((2 * (k / 2)) as f32 / half as f32);
        if k.is_multiple_of(2) { angle.sin() } else { angle.cos() }
    };
    let mut table = Vec::with_capacity(height * width * channels);
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        table.extend((0..half).map(|k| wave(y, height, k)));
        table.extend((0..half).map(|k| wave(x, width, k)));
    }
    table
}
