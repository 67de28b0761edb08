//! Computes with the networks that were read, slowly and plainly, and compares with what PyTorch computed: wrong names, a
//! swapped half or a lost scale cannot pass.

use super::*;

/// Rows of width D.
pub(crate) type Rows = Vec<Vec<f32>>;

fn linear(x: &Rows, layer: &Linear) -> Rows {
    let inputs = layer.weight.shape[1];
    let row = |x: &Vec<f32>| {
        let sum = |(out, weights): (usize, &[f32])| {
            let dot: f32 = weights.iter().zip(x).map(|(w, x)| w * x).sum();
            dot + layer.bias.as_ref().map_or(0.0, |bias| bias[out])
        };
        layer.weight.data.chunks(inputs).enumerate().map(sum).collect()
    };
    x.iter().map(row).collect()
}

fn norm(x: &Rows, norm: &Norm) -> Rows {
    let row = |x: &Vec<f32>| {
        let n = x.len() as f32;
        let mean = x.iter().sum::<f32>() / n;
        let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
        let scaled = |(i, x): (usize, &f32)| (x - mean) / (var + norm.eps).sqrt() * norm.scale[i] + norm.shift[i];
        x.iter().enumerate().map(scaled).collect()
    };
    x.iter().map(row).collect()
}

/// Abramowitz and Stegun 7.1.26 is not exact enough; a Taylor series is, where f32 can see it.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn activate(x: &mut Rows, activation: Activation) {
    for x in x.iter_mut().flatten() {
        *x = match activation {
            Activation::Gelu => (f64::from(*x) * 0.5 * (1.0 + erf(f64::from(*x) / 2f64.sqrt()))) as f32,
            Activation::Silu => *x / (1.0 + (-*x).exp()),
            _ => unreachable!("not in the test data"),
        }
    }
}

/// Angles of the patches: `[patches][head / 2]`, first those of the row, then those of the column.
fn angles(grid: [usize; 2], head: usize, theta: f32) -> Vec<Vec<f32>> {
    let frequencies: Vec<f32> = (0..head / 4).map(|i| theta.powf(-((4 * i) as f32) / head as f32)).collect();
    let at = |i: usize, n: usize| 2.0 * ((i as f32 + 0.5) / n as f32) - 1.0;
    let angle = |place: f32| frequencies.iter().map(move |f| std::f32::consts::TAU * place * f);
    (0..grid[0] * grid[1]).map(|i| angle(at(i / grid[1], grid[0])).chain(angle(at(i % grid[1], grid[1]))).collect()).collect()
}

fn rotate(x: &mut Rows, head: usize, angles: &[Vec<f32>]) {
    let prefix = x.len() - angles.len();
    for (row, angles) in x[prefix..].iter_mut().zip(angles) {
        for head in row.chunks_mut(head) {
            let (first, second) = head.split_at_mut(angles.len());
            for ((a, b), angle) in first.iter_mut().zip(second).zip(angles) {
                (*a, *b) = (*a * angle.cos() - *b * angle.sin(), *b * angle.cos() + *a * angle.sin());
            }
        }
    }
}

fn attention(x: &Rows, block: &Block, heads: usize, angles: Option<&[Vec<f32>]>, mask: Option<&Vec<Vec<bool>>>) -> Rows {
    let (mut q, mut k, v) = (linear(x, &block.q), linear(x, &block.k), linear(x, &block.v));
    let head = x[0].len() / heads;
    if let Some(angles) = angles {
        rotate(&mut q, head, angles);
        rotate(&mut k, head, angles);
    }
    let prefix = mask.map_or(0, |mask| x.len() - mask[0].len());
    let mut out = vec![vec![0.0; x[0].len()]; x.len()];
    for (i, out) in out.iter_mut().enumerate() {
        for h in 0..heads {
            let part = h * head..(h + 1) * head;
            let visible = |j: usize| mask.and_then(|mask| mask.get(i)).is_none_or(|mask| j < prefix || mask[j - prefix]);
            let score =
                |j: usize| q[i][part.clone()].iter().zip(&k[j][part.clone()]).map(|(a, b)| a * b).sum::<f32>() / (head as f32).sqrt();
            let scores: Vec<f32> = (0..x.len()).map(|j| if visible(j) { score(j) } else { f32::NEG_INFINITY }).collect();
            let max = scores.iter().copied().fold(f32::MIN, f32::max);
            let total: f32 = scores.iter().map(|s| (s - max).exp()).sum();
            for (j, score) in scores.iter().enumerate() {
                let weight = (score - max).exp() / total;
                part.clone().for_each(|c| out[c] += weight * v[j][c]);
            }
        }
    }
    linear(&out, &block.out)
}

fn add(x: &mut Rows, y: &Rows, scale: &Option<Vec<f32>>) {
    for (x, y) in x.iter_mut().zip(y) {
        x.iter_mut().zip(y).enumerate().for_each(|(c, (x, y))| *x += y * scale.as_ref().map_or(1.0, |scale| scale[c]));
    }
}

fn mlp(x: &Rows, mlp: &Mlp) -> Rows {
    let (Mlp::Plain { activation, .. } | Mlp::Gated { activation, .. }) = mlp;
    let (mut inner, down) = match mlp {
        Mlp::Plain { up, down, .. } => (linear(x, up), down),
        Mlp::Gated { gate, down, .. } => (linear(x, gate), down),
    };
    activate(&mut inner, *activation);
    if let Mlp::Gated { up, .. } = mlp {
        for (inner, up) in inner.iter_mut().flatten().zip(linear(x, up).iter().flatten()) {
            *inner *= up;
        }
    }
    linear(&inner, down)
}

/// Doubles the grid of `x` (rows = places).
fn upscale(x: &Rows, [h, w]: [usize; 2], block: &ScaleBlock, activation: Activation) -> Rows {
    let d = x[0].len();
    let mut up = vec![block.up_bias.clone(); 4 * h * w];
    for (place, up) in up.iter_mut().enumerate() {
        let (y, x_) = (place / (2 * w), place % (2 * w));
        for (i, value) in x[y / 2 * w + x_ / 2].iter().enumerate() {
            up.iter_mut().enumerate().for_each(|(o, up)| *up += value * block.up_weight.data[((i * d + o) * 2 + y % 2) * 2 + x_ % 2]);
        }
    }
    activate(&mut up, activation);
    let mut out = vec![vec![0.0; d]; up.len()];
    for (place, out) in out.iter_mut().enumerate() {
        for tap in 0..9 {
            let (y, x_) = ((place / (2 * w) + tap / 3).wrapping_sub(1), (place % (2 * w) + tap % 3).wrapping_sub(1));
            if y < 2 * h && x_ < 2 * w {
                out.iter_mut().enumerate().for_each(|(c, out)| *out += up[y * 2 * w + x_][c] * block.depthwise.data[c * 9 + tap]);
            }
        }
    }
    norm(&out, &block.norm)
}

/// Class logits `[Q][C + 1]`, mask logits `[Q][pixels]` and the grid of the latter.
fn predict(network: &Network, x: &Rows, grid: [usize; 2]) -> (Rows, Rows, [usize; 2]) {
    let x = norm(x, &network.norm);
    let queries = x[..network.queries.shape[0]].to_vec();
    let mut masks = queries.clone();
    for (i, layer) in network.mask_head.iter().enumerate() {
        masks = linear(&masks, layer);
        if i < 2 {
            activate(&mut masks, network.head_activation);
        }
    }
    let (mut features, mut size) = (x[x.len() - grid[0] * grid[1]..].to_vec(), grid);
    for block in &network.scale_blocks {
        features = upscale(&features, size, block, network.head_activation);
        size = size.map(|side| 2 * side);
    }
    let dot = |query: &Vec<f32>| features.iter().map(|place| place.iter().zip(query).map(|(a, b)| a * b).sum()).collect();
    (linear(&queries, &network.class_head), masks.iter().map(dot).collect(), size)
}

/// Bilinear, corners not aligned, as torch without antialiasing: which patches a query may see.
fn shrink(masks: &Rows, [h, w]: [usize; 2], grid: [usize; 2]) -> Vec<Vec<bool>> {
    let taps = |i: usize, from: usize, to: usize| {
        let at = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).max(0.0);
        (at as usize, (at as usize + 1).min(from - 1), at.fract())
    };
    let row = |mask: &Vec<f32>| {
        let place = |i: usize| {
            let ((y0, y1, fy), (x0, x1, fx)) = (taps(i / grid[1], h, grid[0]), taps(i % grid[1], w, grid[1]));
            let line = |y: usize| mask[y * w + x0] * (1.0 - fx) + mask[y * w + x1] * fx;
            line(y0) * (1.0 - fy) + line(y1) * fy > 0.0
        };
        (0..grid[0] * grid[1]).map(place).collect()
    };
    masks.iter().map(row).collect()
}

fn embed(network: &Network, pixels: &[f32], grid: [usize; 2]) -> Rows {
    let ([ph, pw], [height, width]) = (network.patch_size, network.image_size);
    let patch = |place: usize| {
        let (top, left) = (place / grid[1] * ph, place % grid[1] * pw);
        let at = |i: usize| pixels[(i / (ph * pw) * height + top + i / pw % ph) * width + left + i % pw];
        let pixels: Vec<f32> = (0..3 * ph * pw).map(at).collect();
        let dot = |(weights, bias): (&[f32], &f32)| weights.iter().zip(&pixels).map(|(w, x)| w * x).sum::<f32>() + bias;
        network.patch_weight.data.chunks(pixels.len()).zip(&network.patch_bias).map(dot).collect()
    };
    let mut patches: Rows = (0..grid[0] * grid[1]).map(patch).collect();
    if let Position::Learned { table, .. } = &network.position {
        patches.iter_mut().flatten().zip(&table.data).for_each(|(x, position)| *x += position);
    }
    let prefix = std::iter::once(network.cls_token.clone()).chain(network.register_tokens.data.chunks(network.hidden).map(<[f32]>::to_vec));
    prefix.chain(patches).collect()
}

fn run(network: &Network, pixels: &[f32]) -> (Rows, Rows) {
    run_with(network, pixels, |_, _, _| {}, |_| {})
}

/// [`run`], with a look at the number of the next block, the tokens before it and the keys of the block before, and at the tokens after
/// the last one.
pub(crate) fn run_with(
    network: &Network,
    pixels: &[f32],
    mut before: impl FnMut(usize, &mut Rows, &Rows),
    after: impl FnOnce(&mut Rows),
) -> (Rows, Rows) {
    let grid = [0, 1].map(|i| network.image_size[i] / network.patch_size[i]);
    let angles = match network.position {
        Position::Rotary { theta } => Some(angles(grid, network.hidden / network.heads, theta)),
        Position::Learned { .. } => None,
    };
    let mut x = embed(network, pixels, grid);
    let mut mask = None;
    let first = network.blocks.len() - network.num_blocks;
    let mut keys = Rows::new();
    for (i, block) in network.blocks.iter().enumerate() {
        before(i, &mut x, &keys);
        if i == first {
            x = network.queries.data.chunks(network.hidden).map(<[f32]>::to_vec).chain(x).collect();
        }
        if i >= first {
            match network.masking[i - first] {
                Masking::Off => mask = None,
                Masking::Previous => {}
                Masking::Own => {
                    let (_, masks, size) = predict(network, &x, grid);
                    mask = Some(shrink(&masks, size, grid));
                }
            }
        }
        keys = linear(&norm(&x, &block.norm1), &block.k);
        let y = attention(&norm(&x, &block.norm1), block, network.heads, angles.as_deref(), mask.as_ref());
        add(&mut x, &y, &block.scale1);
        let y = mlp(&norm(&x, &block.norm2), &block.mlp);
        add(&mut x, &y, &block.scale2);
    }
    after(&mut x);
    let (classes, masks, _) = predict(network, &x, grid);
    (classes, masks)
}

#[test]
fn networks_compute_what_pytorch_computes() {
    let reference = ["dinov2", "dinov2-masked", "dinov2-swiglu", "dinov2-patch8", "dinov3", "dinov3-masked", "upstream-layout"];
    let own = [
        "upstream-giant",
        "upstream-giant-reg",
        "upstream-cls-posembed",
        "upstream-reg-posembed",
        "upstream-strided",
        "upstream-masked",
        "upstream-dinov3-delta",
        "upstream-dinov3-whole",
        "hf-dinov3-gated",
        "hf-mixed-masking-10",
        "hf-mixed-masking-01",
        "hf-bf16",
        "hf-f16",
    ];
    let cases = reference.map(|case| format!("reference/{case}")).into_iter().chain(own.map(|case| format!("checkpoint/{case}")));
    for case in cases {
        let (checkpoint, expected) = (read_case(&case), read_raw(&data(&case).join("expected.safetensors")));
        let pixels = match expected.contains_key("pixel_values") {
            true => floats(&expected, "pixel_values"),
            false => {
                let image = floats(&expected, "image_rgb_u8_as_f32");
                let plane = image.len() / 3;
                let normal = |(i, x): (usize, &f32)| (x / 255.0 - checkpoint.image_mean[i / plane]) / checkpoint.image_std[i / plane];
                image.iter().enumerate().map(normal).collect()
            }
        };
        let (classes, masks) = run(&checkpoint.network, &pixels);
        for (name, ours) in [("class_queries_logits", classes.concat()), ("masks_queries_logits", masks.concat())] {
            let theirs = floats(&expected, name);
            assert_eq!(ours.len(), theirs.len(), "{case} {name}");
            let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 3e-4, "{case}: {name} differs by {worst}");
        }
    }
}
