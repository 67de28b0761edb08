//! A checkpoint's weights for another patch or input: the start of a network that is cheaper than the one that was trained.
//!
//! - The patch embedding is resized by the pseudo-inverse (FlexiViT, Beyer et al. 2023, section 3.4): with `B` the matrix of bilinear
//!   interpolation, `w' = (B^T)^+ w` gives a patch that was enlarged by `B` the token that it had before.
//! - Learned positions are resampled as inference resamples them for another input; rotary ones follow from the grid.
//! - Each doubling of the patch puts one more ScaleBlock before the others, so that masks keep their resolution (paper, section 3.2: `log2(patch) - 2` of
//!   them for masks at a quarter of the input). It starts as a copy of the first one, which reads the same normalized tokens. Each halving
//!   takes the first one away.
//!
//! Everything else does not depend on either size. The network must be trained afterwards: objects are of another size in patches now.

use anyhow::{Result, bail};
use eomt_edge_tools::checkpoint::{Array, Resampling};
use eomt_edge_tools::convert::interpolate_positions;

use super::parameters::Sizes;

/// Changes `sizes` and `weights` to patches of `patch` x `patch` pixels and an input of `image` x `image`; `resampling` is of learned positions.
///
/// # Errors
/// When the input is no multiple of the patch, or fewer than one ScaleBlock would be left.
pub(super) fn resize(
    sizes: &mut Sizes,
    weights: &mut Vec<(String, Array)>,
    (patch, image): (usize, usize),
    resampling: Option<Resampling>,
) -> Result<()> {
    let (old_patch, old_grid) = (sizes.patch, sizes.grid());
    if patch == 0 || image == 0 || !image.is_multiple_of(patch) {
        bail!("an input of {image} pixels is no multiple of the patch of {patch}");
    }
    let scale_blocks = scale_blocks(sizes.scale_blocks, old_patch, patch)?;
    let wanted = Sizes { patch, image, scale_blocks, ..sizes.clone() };
    let grid = wanted.grid();
    for (name, array) in weights.iter_mut() {
        match name.as_str() {
            "embeddings.patch_embeddings.projection.weight" | "embeddings.patch_embeddings.weight" if patch != old_patch => {
                array.data = resize_kernels(&array.data, old_patch, patch);
                array.shape = vec![sizes.hidden, 3, patch, patch];
            }
            "embeddings.position_embeddings.weight" if grid != old_grid => {
                let Some(resampling) = resampling else { continue };
                array.data = interpolate_positions(&array.data, [old_grid; 2], [grid; 2], sizes.hidden, resampling);
                array.shape = vec![grid * grid, sizes.hidden];
            }
            _ => {}
        }
    }
    shift_scale_blocks(weights, sizes.scale_blocks, scale_blocks);
    *sizes = wanted;
    Ok(())
}

/// ScaleBlocks that keep the masks' resolution. Patches whose ratio is no power of two (14 and 16) keep their number.
fn scale_blocks(count: usize, old: usize, new: usize) -> Result<usize> {
    if count == 0 {
        return Ok(0); // there is none to copy
    }
    let doublings = if new >= old { new / old } else { old / new }.ilog2() as usize;
    let kept = if new >= old { Some(count + doublings) } else { count.checked_sub(doublings) };
    match kept {
        Some(kept) if kept > 0 => Ok(kept),
        _ => bail!("patches of {new} pixels leave nothing of its {count} ScaleBlocks, which belong to patches of {old}"),
    }
}

/// Block `i` becomes block `i + new - old`; what is new in front are copies of the first.
fn shift_scale_blocks(weights: &mut Vec<(String, Array)>, old: usize, new: usize) {
    const PREFIX: &str = "upscale_block.block.";
    if old == new || old == 0 {
        return;
    }
    let (blocks, rest): (Vec<_>, Vec<_>) = std::mem::take(weights).into_iter().partition(|(name, _)| name.starts_with(PREFIX));
    *weights = rest;
    for target in 0..new {
        let source = (target + old).saturating_sub(new);
        let from = format!("{PREFIX}{source}.");
        let copies = blocks.iter().filter_map(|(name, array)| Some((name.strip_prefix(&from)?, array)));
        weights.extend(copies.map(|(end, array)| (format!("{PREFIX}{target}.{end}"), array.clone())));
    }
}

/// `[.., old, old]` to `[.., new, new]`: the pseudo-inverse along both axes, as the interpolation of a square is the product of two.
fn resize_kernels(kernels: &[f32], old: usize, new: usize) -> Vec<f32> {
    let matrix = transposed_pseudo_inverse(old, new);
    let mut resized = Vec::with_capacity(kernels.len() / (old * old) * new * new);
    for kernel in kernels.chunks_exact(old * old) {
        let along = |row: usize, column: usize| (0..old).map(|i| matrix[column][i] * f64::from(kernel[row * old + i])).sum::<f64>();
        let wide: Vec<Vec<f64>> = (0..old).map(|row| (0..new).map(|column| along(row, column)).collect()).collect();
        for weights in &matrix {
            resized.extend((0..new).map(|column| weights.iter().zip(&wide).map(|(w, row)| w * row[column]).sum::<f64>() as f32));
        }
    }
    resized
}

/// `(B^T)^+`, `[new][old]`, of the interpolation `B` from `old` to `new` values: `B (B^T B)^-1` when it enlarges, `(B B^T)^-1 B` when it shrinks.
fn transposed_pseudo_inverse(old: usize, new: usize) -> Vec<Vec<f64>> {
    let interpolation = bilinear(old, new);
    let transposed: Vec<Vec<f64>> = (0..old).map(|i| interpolation.iter().map(|row| row[i]).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let gram = |rows: &[Vec<f64>]| rows.iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect::<Vec<Vec<f64>>>();
    if new >= old {
        // rows of B times the inverse of a symmetric matrix: one system for each row
        solve(gram(&transposed), &transposed).into_iter().fold(vec![Vec::new(); new], |mut rows, solution| {
            rows.iter_mut().zip(solution).for_each(|(row, value)| row.push(value));
            rows
        })
    } else {
        solve(gram(&interpolation), &interpolation)
    }
}

/// Bilinear interpolation with half-pixel centres, `[new][old]`; its filter widens when it shrinks (antialiasing), as in FlexiViT.
fn bilinear(old: usize, new: usize) -> Vec<Vec<f64>> {
    let scale = old as f64 / new as f64;
    let stretch = scale.max(1.0);
    let row = |i: usize| {
        let centre = (i as f64 + 0.5) * scale - 0.5;
        let weights: Vec<f64> = (0..old).map(|j| (1.0 - ((j as f64 - centre) / stretch).abs()).max(0.0)).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    };
    (0..new).map(row).collect()
}

/// `A^-1 R` for a symmetric positive definite `A`, by elimination.
fn solve(mut matrix: Vec<Vec<f64>>, right: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut right = right.to_vec();
    let n = matrix.len();
    let subtract = |rows: &mut [Vec<f64>], from: usize, pivot: usize, factor: f64| {
        let (taken, kept) = (rows[pivot].clone(), &mut rows[from]);
        kept.iter_mut().zip(taken).for_each(|(value, taken)| *value -= factor * taken);
    };
    for pivot in 0..n {
        for row in (0..n).filter(|row| *row != pivot) {
            let factor = matrix[row][pivot] / matrix[pivot][pivot];
            subtract(&mut matrix, row, pivot, factor);
            subtract(&mut right, row, pivot, factor);
        }
    }
    for (row, values) in right.iter_mut().enumerate() {
        values.iter_mut().for_each(|value| *value /= matrix[row][row]);
    }
    right
}

#[cfg(test)]
mod tests {
    use super::super::parameters::{Activation, Positions};
    use super::*;
    use eomt_edge_core::scenes::Rng;

    fn draw(count: usize, seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed, 0);
        (0..count).map(|_| rng.uniform(-1.0, 1.0) as f32).collect()
    }

    /// `[old, old]` to `[new, new]` as every picture program enlarges: written as a loop over the four neighbours.
    fn enlarge(patch: &[f32], old: usize, new: usize) -> Vec<f64> {
        let tap = |i: usize| {
            let at = ((i as f64 + 0.5) * old as f64 / new as f64 - 0.5).clamp(0.0, old as f64 - 1.0);
            (at as usize, (at as usize + 1).min(old - 1), at.fract())
        };
        let value = |y: usize, x: usize| f64::from(patch[y * old + x]);
        let mut pixels = Vec::new();
        for y in 0..new {
            let (top, bottom, down) = tap(y);
            for x in 0..new {
                let (left, right, across) = tap(x);
                let upper = value(top, left) * (1.0 - across) + value(top, right) * across;
                let lower = value(bottom, left) * (1.0 - across) + value(bottom, right) * across;
                pixels.push(upper * (1.0 - down) + lower * down);
            }
        }
        pixels
    }

    /// The definition: an enlarged patch has the token of the patch itself.
    #[test]
    fn an_enlarged_patch_keeps_its_token() {
        for (old, new) in [(16, 32), (16, 24), (14, 16), (8, 32), (5, 5)] {
            let (kernel, patch) = (draw(old * old, 1), draw(old * old, 2));
            let resized = resize_kernels(&kernel, old, new);
            let before: f64 = kernel.iter().zip(&patch).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let after: f64 = resized.iter().zip(enlarge(&patch, old, new)).map(|(w, x)| f64::from(*w) * x).sum();
            // f32 weights, sums of up to 1024 products of values below 1
            assert!((before - after).abs() < 1e-3, "{old} to {new}: {before} and {after}");
        }
    }

    /// Where the patch shrinks the token cannot be kept for every patch; what is missed is orthogonal to all that smaller patches can
    /// tell, so no other kernel misses less.
    #[test]
    fn a_smaller_patch_misses_as_little_as_possible() {
        for (old, new) in [(16, 8), (16, 14), (9, 4)] {
            let (shrink, inverse) = (bilinear(old, new), transposed_pseudo_inverse(old, new));
            let kernel: Vec<f64> = draw(old, 3).into_iter().map(f64::from).collect();
            let smaller: Vec<f64> = inverse.iter().map(|row| row.iter().zip(&kernel).map(|(a, b)| a * b).sum()).collect();
            let missed: Vec<f64> =
                (0..old).map(|i| kernel[i] - shrink.iter().zip(&smaller).map(|(row, weight)| row[i] * weight).sum::<f64>()).collect();
            for row in &shrink {
                let told: f64 = row.iter().zip(&missed).map(|(a, b)| a * b).sum();
                assert!(told.abs() < 1e-9, "{old} to {new}: {told}");
                let sum: f64 = row.iter().sum();
                assert!((sum - 1.0).abs() < 1e-12, "grey stays grey");
            }
        }
        let kernel = draw(8 * 8, 4);
        let same = resize_kernels(&kernel, 8, 8);
        assert!(kernel.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn scale_blocks_keep_the_resolution_of_masks() {
        let sizes = Sizes {
            hidden: 4,
            heads: 2,
            blocks: 1,
            query_blocks: 1,
            queries: 2,
            classes: 3,
            registers: 0,
            patch: 16,
            image: 64,
            inner: 4,
            gated: false,
            activation: Activation::Gelu,
            positions: Positions::Learned,
            scale_blocks: 2,
            eps: 1e-6,
            video: false,
            chain: None,
        };
        let start = super::super::parameters::random(&sizes, 1);
        let find = |weights: &[(String, Array)], name: &str| weights.iter().find(|(found, _)| found == name).unwrap().1.clone();
        let (mut larger, mut weights) = (sizes.clone(), start.clone());
        resize(&mut larger, &mut weights, (32, 128), Some(Resampling::Antialiased)).unwrap();
        assert_eq!((larger.grid(), larger.scale_blocks), (4, 3));
        assert_eq!(larger.mask_side() * 4, larger.image);
        let shapes: std::collections::BTreeMap<_, _> = super::super::parameters::shapes(&larger).into_iter().collect();
        let got: std::collections::BTreeMap<_, _> = weights.iter().map(|(name, array)| (name.clone(), array.shape.clone())).collect();
        assert_eq!(got, shapes);
        for (new, old) in [(0, 0), (1, 0), (2, 1)] {
            let name = |block: usize| format!("upscale_block.block.{block}.conv1.weight");
            assert_eq!(find(&weights, &name(new)).data, find(&start, &name(old)).data);
        }
        resize(&mut larger, &mut weights, (16, 64), Some(Resampling::Antialiased)).unwrap();
        assert_eq!(larger, sizes);
        let name = "upscale_block.block.0.conv2.weight";
        assert_eq!(find(&weights, name).data, find(&start, name).data);
        assert!(resize(&mut larger, &mut weights, (2, 64), Some(Resampling::Antialiased)).is_err());
    }
}
