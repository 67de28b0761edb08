//! Mask2Former's pixel decoder (Cheng et al. 2022, section 3.2.2): an encoder of deformable attention on the maps at 1/32, 1/16 and 1/8, then
//! one step of a feature pyramid network to the map at 1/4, as transformers' `Mask2FormerPixelDecoder`.

use super::adapter::{DeformableLayers, centres};
use super::backend::{Activation, Backend, Conv, Init, Linear, Map, Norm, Tokens, Weight};
use super::pyramid::{group_norm, projection};
use super::transformer_decoder::sine_positions;
use super::{EPS, Features, Sizes};

const NAME: &str = "pixel_level_module.decoder";

/// Maps at 1/4, 1/8, 1/16, 1/32 to mask features and the maps of the transformer decoder.
pub(super) fn run<B: Backend>(backend: &mut B, sizes: &Sizes, maps: &[Map<B::Value>; 4]) -> Result<Features<B::Value>, B::Error> {
    let [quarter, eighth, sixteenth, last] = maps;
    let d = sizes.decoder_width;
    let levels = [last.size, sixteenth.size, eighth.size];
    let mut parts = Vec::new();
    for (index, map) in [last, sixteenth, eighth].into_iter().enumerate() {
        let name = format!("{NAME}.input_projections.{index}");
        let narrow = backend.conv(map, &projection(&format!("{name}.0"), map.channels, d))?;
        let normed = group_norm(backend, &narrow, &format!("{name}.1"))?;
        parts.push(backend.to_tokens(&normed)?);
    }
    let positions = positions(backend, &levels, d)?;
    let mut x = backend.concat(&parts.iter().collect::<Vec<_>>())?;
    let reference = centres(&levels);
    for index in 0..sizes.pixel_decoder_layers {
        x = layer(backend, sizes, &format!("{NAME}.encoder.layers.{index}"), &x, &positions, (&reference, &levels))?;
    }
    let (mut start, mut scales) = (0, Vec::new());
    for side in levels {
        let level = backend.slice(&x, start, side[0] * side[1])?;
        start += level.count;
        scales.push(backend.to_map(&level, side)?);
    }
    let lateral = backend.conv(quarter, &bare(&format!("{NAME}.adapter_1.0"), quarter.channels, d, 1))?;
    let lateral = group_norm(backend, &lateral, &format!("{NAME}.adapter_1.1"))?;
    let coarse = backend.resize(&scales[2], quarter.size)?;
    let sum = backend.add(&lateral.value, &coarse.value)?;
    let mixed = backend.conv(&lateral.with(sum), &bare(&format!("{NAME}.layer_1.0"), d, d, 3))?;
    let mixed = group_norm(backend, &mixed, &format!("{NAME}.layer_1.1"))?;
    let active = backend.activate(&mixed.value, Activation::Relu)?;
    let masks = backend.conv(&mixed.with(active), &projection(&format!("{NAME}.mask_projection"), d, d))?;
    Ok(Features { masks, scales })
}

/// Sine positions of the pixels of all maps, and a learned row for each map.
fn positions<B: Backend>(backend: &mut B, levels: &[[usize; 2]], d: usize) -> Result<Tokens<B::Value>, B::Error> {
    let rows = Weight::new(format!("{NAME}.level_embed"), &[levels.len(), d], Init::Normal(1.0));
    let mut parts = Vec::new();
    for (row, side) in levels.iter().enumerate() {
        let sines = backend.constant(&|| sine_positions(*side, d), side[0] * side[1], d)?;
        parts.push(backend.add_row(&sines, &rows, row)?);
    }
    backend.concat(&parts.iter().collect::<Vec<_>>())
}

/// Deformable attention of each pixel to all maps, then an MLP; norms behind the sums.
fn layer<B: Backend>(
    backend: &mut B,
    sizes: &Sizes,
    name: &str,
    x: &Tokens<B::Value>,
    positions: &Tokens<B::Value>,
    (reference, levels): (&[[f32; 2]], &[[usize; 2]]),
) -> Result<Tokens<B::Value>, B::Error> {
    let (d, inner) = (sizes.decoder_width, sizes.pixel_decoder_inner);
    let layers = DeformableLayers { name: format!("{name}.self_attn"), queries: d, values: d, width: d, heads: sizes.decoder_heads };
    let placed = backend.add(&x.value, &positions.value)?;
    let sampled = layers.sample(backend, &x.with(placed), x, reference, levels)?;
    let x = backend.residual(x, &sampled, &layers.output(), None)?;
    let x = backend.norm(&x, &Norm::new(&format!("{name}.self_attn_layer_norm"), d, EPS))?;
    let wide = backend.linear(&x, &Linear::new(&format!("{name}.fc1"), d, inner, Init::xavier(d, inner)))?;
    let active = backend.activate(&wide.value, Activation::Relu)?;
    let x = backend.residual(&x, &wide.with(active), &Linear::new(&format!("{name}.fc2"), inner, d, Init::xavier(inner, d)), None)?;
    backend.norm(&x, &Norm::new(&format!("{name}.final_layer_norm"), d, EPS))
}

/// A convolution without bias, as a norm follows.
fn bare(name: &str, from: usize, to: usize, kernel: usize) -> Conv {
    let area = kernel * kernel;
    Conv {
        weight: Weight::new(format!("{name}.weight"), &[to, from, kernel, kernel], Init::xavier(area * from, area * to)),
        bias: None,
        norm: None,
        stride: 1,
        padding: kernel / 2,
    }
}
