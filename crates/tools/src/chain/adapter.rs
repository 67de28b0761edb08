//! ViT-Adapter (Chen et al. 2023, section 3): a small convolutional network beside the ViT, the spatial prior module, whose maps exchange
//! with the ViT's tokens by deformable attention, into it (injector) and out of it (extractor).
//!
//! ```text
//! pixels ─▶ spatial prior ─▶ c1 (1/4)       c = [c2 (1/8), c3 (1/16), c4 (1/32)]
//! for each stretch of blocks:  x += γ · inject(x, c);  x = blocks(x);  c = extract(c, x)      the last one extracts three times
//! c1 += double(c2);  c1 .. c4 += x, resized;  batch norm of each
//! ```
//!
//! As in the authors' code: no norm behind the ViT's last block, and the class token is left out of the exchange.

use super::backend::{Activation, Backend, BatchNorm, Conv, Deformable, Init, Linear, Map, Norm, Tokens, Weight};
use super::encoder::{self, SMALL};
use super::pyramid::projection;
use super::{POINTS, Sizes};

/// Epsilon of the adapter's layer norms.
const NORM_EPS: f32 = 1e-6;
/// Extractors behind the last stretch, beside its own.
const EXTRA_EXTRACTORS: usize = 2;

/// Pixels to maps at 1/4, 1/8, 1/16, 1/32, each as wide as the ViT.
pub(super) fn run<B: Backend>(backend: &mut B, sizes: &Sizes, pixels: &Map<B::Value>) -> Result<[Map<B::Value>; 4], B::Error> {
    let [c1, c2, c3, c4] = spatial_prior(backend, sizes, pixels)?;
    let sides = [c2.size, c3.size, c4.size];
    let mut levels = Vec::new();
    for (row, map) in [c2, c3, c4].iter().enumerate() {
        let tokens = backend.to_tokens(map)?;
        levels.push(backend.add_row(&tokens, &Weight::new("adapter.level_embed", &[3, sizes.hidden], Init::Normal(1.0)), row)?);
    }
    let mut c = backend.concat(&levels.iter().collect::<Vec<_>>())?;
    let (mut prefix, mut x, grid) = encoder::embed(backend, sizes, pixels)?;
    let stretch = sizes.blocks / sizes.interactions;
    for index in 0..sizes.interactions {
        let name = format!("adapter.interactions.{index}");
        x = inject(backend, sizes, &format!("{name}.injector"), &x, &c, (grid, sides))?;
        let mut tokens = backend.concat(&[&prefix, &x])?;
        for block in index * stretch..(index + 1) * stretch {
            tokens = encoder::block(backend, sizes, &tokens, block)?;
        }
        let count = prefix.count;
        prefix = backend.slice(&tokens, 0, count)?;
        x = backend.slice(&tokens, count, x.count)?;
        c = extract(backend, sizes, &format!("{name}.extractor"), &c, &x, (grid, sides))?;
        if index + 1 == sizes.interactions {
            for extra in 0..EXTRA_EXTRACTORS {
                c = extract(backend, sizes, &format!("{name}.extra_extractors.{extra}"), &c, &x, (grid, sides))?;
            }
        }
    }
    outputs(backend, sizes, c1, &c, &x, (grid, sides))
}

/// Maps at 1/4, 1/8, 1/16, 1/32.
fn spatial_prior<B: Backend>(backend: &mut B, sizes: &Sizes, pixels: &Map<B::Value>) -> Result<[Map<B::Value>; 4], B::Error> {
    let width = sizes.prior_channels;
    let stem = prior_step(backend, pixels, "stem.0", width, 2)?;
    let stem = prior_step(backend, &stem, "stem.1", width, 1)?;
    let stem = prior_step(backend, &stem, "stem.2", width, 1)?;
    let quarter = backend.max_pool(&stem, 3, 2, 1)?;
    let eighth = prior_step(backend, &quarter, "conv2", 2 * width, 2)?;
    let sixteenth = prior_step(backend, &eighth, "conv3", 4 * width, 2)?;
    let last = prior_step(backend, &sixteenth, "conv4", 4 * width, 2)?;
    let mut wide = |map: &Map<B::Value>, index: usize| {
        backend.conv(map, &projection(&format!("adapter.spatial_prior.fc{index}"), map.channels, sizes.hidden))
    };
    Ok([wide(&quarter, 1)?, wide(&eighth, 2)?, wide(&sixteenth, 3)?, wide(&last, 4)?])
}

/// Convolution of 3x3, batch norm, ReLU.
fn prior_step<B: Backend>(backend: &mut B, x: &Map<B::Value>, name: &str, to: usize, stride: usize) -> Result<Map<B::Value>, B::Error> {
    let name = format!("adapter.spatial_prior.{name}");
    // normal with the variance 2 / fan out (He et al. 2015), as the authors start it
    let init = Init::Normal((2.0 / (9 * to) as f32).sqrt());
    let conv = Conv {
        weight: Weight::new(format!("{name}.conv.weight"), &[to, x.channels, 3, 3], init),
        bias: None,
        norm: Some(BatchNorm::new(&format!("{name}.norm"), to)),
        stride,
        padding: 1,
    };
    let y = backend.conv(x, &conv)?;
    let active = backend.activate(&y.value, Activation::Relu)?;
    Ok(y.with(active))
}

/// The ViT's patches look at the three maps: `x + γ attention(norm x, norm c)`, γ 0 at first.
fn inject<B: Backend>(
    backend: &mut B,
    sizes: &Sizes,
    name: &str,
    x: &Tokens<B::Value>,
    c: &Tokens<B::Value>,
    (grid, sides): ([usize; 2], [[usize; 2]; 3]),
) -> Result<Tokens<B::Value>, B::Error> {
    let gamma = Weight::new(format!("{name}.gamma"), &[sizes.hidden], Init::Constant(0.0));
    exchange(backend, sizes, name, [x, c], (&centres(&[grid]), &sides), Some(&gamma))
}

/// The pixels of the three maps look at the ViT's patches: `c + attention(norm c, norm x)`, then an MLP with a depthwise convolution inside.
fn extract<B: Backend>(
    backend: &mut B,
    sizes: &Sizes,
    name: &str,
    c: &Tokens<B::Value>,
    x: &Tokens<B::Value>,
    (grid, sides): ([usize; 2], [[usize; 2]; 3]),
) -> Result<Tokens<B::Value>, B::Error> {
    let (d, inner) = (sizes.hidden, sizes.extractor_inner());
    let c = exchange(backend, sizes, name, [c, x], (&centres(&sides), &[grid]), None)?;
    let normed = backend.norm(&c, &Norm::new(&format!("{name}.ffn_norm"), d, NORM_EPS))?;
    let wide = backend.linear(&normed, &Linear::new(&format!("{name}.ffn.fc1"), d, inner, SMALL))?;
    let taps = Weight::new(format!("{name}.ffn.dwconv.weight"), &[inner, 1, 3, 3], Init::Normal((2.0f32 / 9.0).sqrt()));
    let bias = Weight::new(format!("{name}.ffn.dwconv.bias"), &[inner], Init::Constant(0.0));
    let (mut start, mut mixed) = (0, Vec::new());
    for side in sides {
        let level = backend.slice(&wide, start, side[0] * side[1])?;
        start += level.count;
        let map = backend.to_map(&level, side)?;
        let map = backend.depthwise(&map, &taps, Some(&bias))?;
        mixed.push(backend.to_tokens(&map)?);
    }
    let mixed = backend.concat(&mixed.iter().collect::<Vec<_>>())?;
    let active = backend.activate(&mixed.value, Activation::Gelu)?;
    backend.residual(&c, &mixed.with(active), &Linear::new(&format!("{name}.ffn.fc2"), inner, d, SMALL), None)
}

/// `x + scale * attention(norm x, norm other)`.
fn exchange<B: Backend>(
    backend: &mut B,
    sizes: &Sizes,
    name: &str,
    [x, other]: [&Tokens<B::Value>; 2],
    (reference, levels): (&[[f32; 2]], &[[usize; 2]]),
    scale: Option<&Weight>,
) -> Result<Tokens<B::Value>, B::Error> {
    let (d, width) = (sizes.hidden, sizes.deformable_width());
    let queries = backend.norm(x, &Norm::new(&format!("{name}.query_norm"), d, NORM_EPS))?;
    let features = backend.norm(other, &Norm::new(&format!("{name}.feat_norm"), d, NORM_EPS))?;
    let layers = DeformableLayers { name: format!("{name}.attn"), queries: d, values: d, width, heads: sizes.heads };
    let sampled = layers.sample(backend, &queries, &features, reference, levels)?;
    backend.residual(x, &sampled, &layers.output(), scale)
}

/// The layers of one deformable attention (ViT-Adapter's and Mask2Former's alike).
pub(super) struct DeformableLayers {
    pub name: String,
    /// Width of what queries are made of, and of the result.
    pub queries: usize,
    /// Width of what values are made of.
    pub values: usize,
    /// Width of values.
    pub width: usize,
    pub heads: usize,
}

impl DeformableLayers {
    /// Everything before [`DeformableLayers::output`].
    pub(super) fn sample<B: Backend>(
        &self,
        backend: &mut B,
        queries: &Tokens<B::Value>,
        values: &Tokens<B::Value>,
        reference: &[[f32; 2]],
        levels: &[[usize; 2]],
    ) -> Result<Tokens<B::Value>, B::Error> {
        let (heads, places) = (self.heads, self.heads * levels.len() * POINTS);
        let part = |part: &str| format!("{}.{part}", self.name);
        let values =
            backend.linear(values, &Linear::new(&part("value_proj"), self.values, self.width, Init::xavier(self.values, self.width)))?;
        let mut offsets = Linear::new(&part("sampling_offsets"), self.queries, 2 * places, Init::Constant(0.0));
        let directions = Init::Directions { heads, levels: levels.len(), points: POINTS };
        offsets.bias = Some(Weight::new(part("sampling_offsets.bias"), &[2 * places], directions));
        let offsets = backend.linear(queries, &offsets)?;
        let scores = backend.linear(queries, &Linear::new(&part("attention_weights"), self.queries, places, Init::Constant(0.0)))?;
        backend.deformable(&Deformable { values: &values, offsets: &offsets, scores: &scores, reference, levels, heads, points: POINTS })
    }

    /// The layer behind it.
    pub(super) fn output(&self) -> Linear {
        Linear::new(&format!("{}.output_proj", self.name), self.width, self.queries, Init::xavier(self.width, self.queries))
    }
}

/// Centres of the pixels of maps one after the other, (x, y), each 0 to 1.
pub(super) fn centres(sides: &[[usize; 2]]) -> Vec<[f32; 2]> {
    let of = |side: &[usize; 2]| {
        let [height, width] = *side;
        let centre = |at: usize, count: usize| (at as f32 + 0.5) / count as f32;
        (0..height * width).map(move |at| [centre(at % width, width), centre(at / width, height)])
    };
    sides.iter().flat_map(of).collect()
}

/// Tokens back to maps, the ViT's own added, a batch norm behind each.
fn outputs<B: Backend>(
    backend: &mut B,
    sizes: &Sizes,
    c1: Map<B::Value>,
    c: &Tokens<B::Value>,
    x: &Tokens<B::Value>,
    (grid, sides): ([usize; 2], [[usize; 2]; 3]),
) -> Result<[Map<B::Value>; 4], B::Error> {
    let d = sizes.hidden;
    let (mut start, mut maps) = (0, Vec::new());
    for side in sides {
        let level = backend.slice(c, start, side[0] * side[1])?;
        start += level.count;
        maps.push(backend.to_map(&level, side)?);
    }
    let up = Weight::new("adapter.up.weight", &[d, d, 2, 2], Init::fan_in(4 * d));
    let doubled = backend.transposed_conv(&maps[0], &up, &Weight::new("adapter.up.bias", &[d], Init::Constant(0.0)))?;
    let sum = backend.add(&doubled.value, &c1.value)?;
    maps.insert(0, c1.with(sum));
    let own = backend.to_map(x, grid)?;
    let mut normed = |map: &Map<B::Value>, index: usize| {
        let resized = if map.size == grid { own.clone() } else { backend.resize(&own, map.size)? };
        let sum = backend.add(&map.value, &resized.value)?;
        backend.batch_norm(&map.with(sum), &BatchNorm::new(&format!("adapter.norm{index}"), d))
    };
    Ok([normed(&maps[0], 1)?, normed(&maps[1], 2)?, normed(&maps[2], 3)?, normed(&maps[3], 4)?])
}
