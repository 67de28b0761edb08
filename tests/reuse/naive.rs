//! EoMT with reuse over time, written from the definition in plain f64: loops, no fused operator, no packed memory.
//!
//! Network: transformers' `modeling_eomt.py` (DINOv2 style). Reuse: docs/reuse.md, "What is computed".

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;

const D: usize = 48;
const HEADS: usize = 3;
const HEAD: usize = D / HEADS;
const PATCH: usize = 16;
const SIDE: usize = 96;
const GRID: usize = SIDE / PATCH;
const PATCHES: usize = GRID * GRID;
const PREFIX: usize = 5;
const QUERIES: usize = 10;
const LAYERS: usize = 4;
/// Queries join before this layer.
const JOIN: usize = 2;

type Row = Vec<f64>;

/// Class logits `[queries, classes]` and mask logits `[queries, 24, 24]`.
pub struct Answer {
    pub class: Vec<f64>,
    pub masks: Vec<f64>,
}

/// The network, and what each token had when it was last computed.
pub struct Naive {
    weights: HashMap<String, Vec<f64>>,
    /// Per layer: of each patch, its key and its value.
    kept: Vec<Vec<(Row, Row)>>,
    /// Of each patch, its token after the last norm.
    last: Vec<Row>,
    /// Of each patch, the pixels with which it was last computed, `[3, 16, 16]`.
    seen: Vec<Row>,
    frame: usize,
}

fn layer_norm(x: &[f64], scale: &[f64], shift: &[f64]) -> Row {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
    x.iter().zip(scale.iter().zip(shift)).map(|(v, (a, b))| (v - mean) / (variance + 1e-6).sqrt() * a + b).collect()
}

/// The error function (Abramowitz and Stegun 7.1.5, a series that converges for all x; the arguments here are below 6).
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

fn add(x: &[f64], y: &[f64]) -> Row {
    x.iter().zip(y).map(|(a, b)| a + b).collect()
}

impl Naive {
    pub fn open(checkpoint: &Path) -> Naive {
        let bytes = std::fs::read(checkpoint).expect("the checkpoint");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let values = |data: &[u8]| data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect();
        let weights = file.iter().map(|(name, tensor)| (name.to_owned(), values(tensor.data()))).collect();
        Naive { weights, kept: vec![Vec::new(); LAYERS], last: Vec::new(), seen: Vec::new(), frame: 0 }
    }

    fn weight(&self, name: &str) -> &[f64] {
        &self.weights[name]
    }

    fn linear(&self, name: &str, x: &[f64]) -> Row {
        let (matrix, bias) = (self.weight(&format!("{name}.weight")), self.weight(&format!("{name}.bias")));
        matrix.chunks_exact(x.len()).zip(bias).map(|(row, bias)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + bias).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Row {
        layer_norm(x, self.weight(&format!("{name}.weight")), self.weight(&format!("{name}.bias")))
    }

    /// The pixels of each patch.
    fn patches(pixels: &[f32]) -> Vec<Row> {
        let pixel = |c: usize, y: usize, x: usize| f64::from(pixels[(c * SIDE + y) * SIDE + x]);
        let patch = |index: usize| {
            let (top, left) = (index / GRID * PATCH, index % GRID * PATCH);
            let place = move |i: usize| (i / (PATCH * PATCH), top + i / PATCH % PATCH, left + i % PATCH);
            (0..3 * PATCH * PATCH).map(place).map(|(c, y, x)| pixel(c, y, x)).collect()
        };
        (0..PATCHES).map(patch).collect()
    }

    /// Whether a patch differs by more than `threshold` levels in a mean of 4x4 pixels, or by more than eight times that in one value.
    fn differs(now: &[f64], seen: &[f64], threshold: f64) -> bool {
        let std = [0.229, 0.224, 0.225];
        let level = |c: usize, y: usize, x: usize| {
            let at = (c * PATCH + y) * PATCH + x;
            (now[at] - seen[at]) * std[c] * 255.0
        };
        let cell =
            |c: usize, top: usize, left: usize| (0..16).map(|i| level(c, top + i / 4, left + i % 4)).sum::<f64>().abs() / 16.0 > threshold;
        let cells = (0..3).any(|c| (0..16).any(|i| cell(c, i / 4 * 4, i % 4 * 4)));
        cells || (0..3 * PATCH * PATCH).any(|i| level(i / 256, i / 16 % 16, i % 16).abs() > 8.0 * threshold)
    }

    /// The next frame; also how many patches were computed.
    pub fn run(&mut self, pixels: &[f32], threshold: f64, budget: f64, refresh: usize) -> (Answer, usize) {
        let patches = Self::patches(pixels);
        let turn = if refresh > 0 { self.frame % refresh } else { 0 };
        let due = |index: usize| refresh > 0 && (PATCHES * turn / refresh..PATCHES * (turn + 1) / refresh).contains(&index);
        self.frame += 1;
        let first = self.seen.is_empty();
        let wanted = |index: usize| first || due(index) || Self::differs(&patches[index], &self.seen[index], threshold);
        let mut chosen: Vec<usize> = (0..PATCHES).filter(|index| wanted(*index)).collect();
        if first || chosen.len() as f64 > budget * PATCHES as f64 {
            chosen = (0..PATCHES).collect();
        }
        self.seen.resize(PATCHES, Vec::new());
        self.last.resize(PATCHES, Vec::new());
        self.kept.iter_mut().for_each(|kept| kept.resize(PATCHES, Default::default()));
        chosen.iter().for_each(|index| self.seen[*index].clone_from(&patches[*index]));
        (self.compute(&patches, &chosen), chosen.len())
    }

    fn compute(&mut self, patches: &[Row], chosen: &[usize]) -> Answer {
        let rows = |name: &str| self.weight(name).chunks_exact(D).map(<[f64]>::to_vec).collect::<Vec<Row>>();
        let positions = rows("embeddings.position_embeddings.weight");
        let embed = |index: &usize| {
            let x = self.linear("embeddings.patch_embeddings.projection", &patches[*index]);
            add(&x, &positions[*index])
        };
        // before the patches: queries (from the join on), then class and register tokens
        let mut before = [rows("embeddings.cls_token"), rows("embeddings.register_tokens")].concat();
        let mut tokens: Vec<Row> = chosen.iter().map(embed).collect();
        assert_eq!(before.len(), PREFIX);
        for layer in 0..LAYERS {
            if layer == JOIN {
                before.splice(0..0, self.weight("query.weight").chunks_exact(D).map(<[f64]>::to_vec));
            }
            let count = before.len();
            let stream = self.layer(layer, [before, tokens].concat(), count, chosen);
            (before, tokens) = (stream[..count].to_vec(), stream[count..].to_vec());
        }
        for (index, token) in chosen.iter().zip(&tokens) {
            self.last[*index] = self.norm("layernorm", token);
        }
        let queries: Vec<Row> = before[..QUERIES].iter().map(|query| self.norm("layernorm", query)).collect();
        self.heads(&queries)
    }

    /// One layer on the rows of `x`: `count` tokens before the patches, then the chosen patches. All tokens are attended to.
    fn layer(&mut self, layer: usize, x: Vec<Row>, count: usize, chosen: &[usize]) -> Vec<Row> {
        let name = |part: &str| format!("layers.{layer}.{part}");
        let normed: Vec<Row> = x.iter().map(|row| self.norm(&name("norm1"), row)).collect();
        let project = |part: &str, row: &Row| self.linear(&name(&format!("attention.{part}")), row);
        let mut own: Vec<(Row, Row)> = normed.iter().map(|row| (project("k_proj", row), project("v_proj", row))).collect();
        let queries: Vec<Row> = normed.iter().map(|row| project("q_proj", row)).collect();
        for (index, pair) in chosen.iter().zip(own.drain(count..)) {
            self.kept[layer][*index] = pair;
        }
        let all: Vec<&(Row, Row)> = own.iter().chain(&self.kept[layer]).collect();
        let attend = |q: &Row| {
            let mut out = Row::new();
            for columns in (0..HEADS).map(|head| head * HEAD..(head + 1) * HEAD) {
                let dot = |key: &Row| q[columns.clone()].iter().zip(&key[columns.clone()]).map(|(a, b)| a * b).sum::<f64>();
                let weights: Vec<f64> = all.iter().map(|(key, _)| (dot(key) / (HEAD as f64).sqrt()).exp()).collect();
                let sum = weights.iter().sum::<f64>();
                out.extend(columns.map(|c| weights.iter().zip(&all).map(|(w, (_, value))| w * value[c]).sum::<f64>() / sum));
            }
            out
        };
        let scaled = |x: &[f64], scale: &str| x.iter().zip(self.weight(&name(scale))).map(|(x, s)| x * s).collect::<Row>();
        let rows = x.iter().zip(&queries).map(|(x, q)| {
            let attended = self.linear(&name("attention.out_proj"), &attend(q));
            let x = add(x, &scaled(&attended, "layer_scale1.lambda1"));
            let hidden = self.linear(&name("mlp.fc1"), &self.norm(&name("norm2"), &x));
            let hidden: Row = hidden.into_iter().map(gelu).collect();
            add(&x, &scaled(&self.linear(&name("mlp.fc2"), &hidden), "layer_scale2.lambda1"))
        });
        rows.collect()
    }

    fn heads(&self, queries: &[Row]) -> Answer {
        let class = queries.iter().flat_map(|query| self.linear("class_predictor", query)).collect();
        let hidden = |name: &str, x: &Row| self.linear(name, x).into_iter().map(gelu).collect::<Row>();
        let embed = |query: &Row| self.linear("mask_head.fc3", &hidden("mask_head.fc2", &hidden("mask_head.fc1", query)));
        let embeddings: Vec<Row> = queries.iter().map(embed).collect();
        let mut features = self.last.clone();
        for block in 0..2 {
            features = self.upscale(block, &features, GRID << block);
        }
        let product = |query: &Row, pixel: &Row| query.iter().zip(pixel).map(|(a, b)| a * b).sum::<f64>();
        let masks = embeddings.iter().flat_map(|query| features.iter().map(move |pixel| product(query, pixel))).collect();
        Answer { class, masks }
    }

    /// Transposed convolution 2x2 with stride 2, GELU, depthwise 3x3, norm over channels.
    fn upscale(&self, block: usize, map: &[Row], side: usize) -> Vec<Row> {
        let name = |part: &str| format!("upscale_block.block.{block}.{part}");
        let (matrix, bias) = (self.weight(&name("conv1.weight")), self.weight(&name("conv1.bias")));
        let large = |y: usize, x: usize, c: usize| {
            let from = &map[y / 2 * side + x / 2];
            gelu((0..D).map(|i| from[i] * matrix[((i * D + c) * 2 + y % 2) * 2 + x % 2]).sum::<f64>() + bias[c])
        };
        let wide = 2 * side;
        let enlarged: Vec<Row> = (0..wide * wide).map(|at| (0..D).map(|c| large(at / wide, at % wide, c)).collect()).collect();
        let taps = self.weight(&name("conv2.weight"));
        let pixel = |y: usize, x: usize| {
            let mut sums = vec![0.0; D];
            for (dy, dx) in (0..3).flat_map(|dy| (0..3).map(move |dx| (dy, dx))) {
                let (row, column) = ((y + dy).wrapping_sub(1), (x + dx).wrapping_sub(1));
                if row < wide && column < wide {
                    let from = &enlarged[row * wide + column];
                    sums.iter_mut().enumerate().for_each(|(c, sum)| *sum += from[c] * taps[(c * 3 + dy) * 3 + dx]);
                }
            }
            self.norm(&name("layernorm2d"), &sums)
        };
        (0..wide * wide).map(|at| pixel(at / wide, at % wide)).collect()
    }
}
