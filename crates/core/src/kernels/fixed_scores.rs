//! Attention weights by scores in fixed point: products of int8 queries and keys become 16-bit scores, those binary16 weights, in one buffer.
//!
//! The number format and its error are described in `arch/fixed.rs`. For instruction sets with
//! [`Isa::has_fixed_scores`](super::arch::Isa::has_fixed_scores); there are no masks here, whose values have no bounds.

use std::f32::consts::LOG2_E;

use super::arch::{Aligned, FIXED_COLUMNS, FIXED_ROWS, FixedBiases, FixedTile, Isa, fixed_point};
use super::columns::array_at;
use super::packed::PackedI8;
use super::quantize::{Activations, Row};

/// What there is to know about the keys of a head, besides their panels.
#[derive(Debug, Clone, Default)]
pub struct FixedKeys {
    /// The sum of each key's integers times its scale.
    sums: Vec<f32>,
    /// The largest scale.
    scale_max: f32,
}

impl FixedKeys {
    /// Of these keys, packed as columns.
    #[inline(always)]
    pub fn set(&mut self, keys: &PackedI8) {
        self.sums.resize(keys.sums().len(), 0.0);
        self.scale_max = 0.0;
        for ((to, sum), scale) in self.sums.iter_mut().zip(keys.sums()).zip(keys.scales()) {
            *to = *sum as f32 * scale;
            self.scale_max = if *scale > self.scale_max { *scale } else { self.scale_max };
        }
    }
}

/// The factors of the rows of a block.
#[derive(Debug, Default)]
pub struct FixedRows {
    factors: Vec<f32>,
    zeros: Vec<f32>,
    /// Bits of fraction; `None` for a row that has no numbers.
    fractions: Vec<Option<i32>>,
    /// 2 to the power of those.
    powers: Vec<f32>,
    /// Of each key, in powers of two; padded.
    biases: Vec<f32>,
}

impl FixedRows {
    /// `rows` are padded to whole tiles, `size` is the largest product of a key's value, all scales but the row's, and the number of values; `most` is the
    /// largest bias.
    fn set(&mut self, rows: &[Row], scale: f32, size: f32, most: f32) {
        self.powers.clear();
        self.factors.clear();
        self.zeros.clear();
        self.fractions.clear();
        for row in rows {
            // integers are -128..=127
            let largest = row.scale * (row.zero + 128).max(127 - row.zero) as f32;
            let point = fixed_point(largest * size + most);
            self.powers.push(point.map_or(0.0, |(_, power)| power));
            self.factors.push(point.map_or(0.0, |(_, power)| row.scale * scale * power));
            self.zeros.push(row.zero as f32);
            self.fractions.push(point.map(|(fraction, _)| fraction));
        }
    }

    /// Biases of the last of `tokens` keys, natural logarithms, gives the largest magnitude.
    fn set_biases(&mut self, tokens: usize, biases: &[f32]) -> f32 {
        self.biases.clear();
        self.biases.resize(tokens - biases.len(), 0.0);
        self.biases.extend(biases.iter().map(|bias| bias * LOG2_E));
        self.biases.resize(tokens.next_multiple_of(FIXED_COLUMNS), 0.0);
        self.biases.iter().fold(0.0, |most, bias| if bias.abs() > most { bias.abs() } else { most })
    }
}

/// Weights of `count` queries of `head_dim` values, whose products count `scale` times, into `weights`, as many a row as there are keys, rows as far apart as is said with it; `sums` gets 1 / their sums.
/// `biases` are added to the scores of the last keys.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub fn fixed_scores(
    isa: Isa,
    scale: f32,
    (count, head_dim): (usize, usize),
    queries: &Activations,
    keys: &PackedI8,
    fixed: &FixedKeys,
    rows: &mut FixedRows,
    biases: &[f32],
    (weights, stride): (&mut Aligned<u16>, usize),
    sums: &mut [f32],
) {
    let (tokens, k) = (keys.n(), isa.dot_tile().padded(head_dim));
    let scale = scale * LOG2_E;
    let most = if biases.is_empty() { 0.0 } else { rows.set_biases(tokens, biases) };
    let size = scale.abs() * fixed.scale_max * 127.0 * head_dim as f32;
    rows.set(queries.parameters(0, count.next_multiple_of(FIXED_ROWS)), scale, size, most);
    for (index, left) in (0..tokens).step_by(FIXED_COLUMNS).enumerate() {
        let (panel, scales, offsets) = (keys.panel(index), array_at(keys.scales(), left), array_at(&fixed.sums, left));
        for row in (0..count).step_by(FIXED_ROWS) {
            let (factors, zeros) = (array_at(&rows.factors, row), array_at(&rows.zeros, row));
            let biased = || FixedBiases { keys: array_at(&rows.biases, left), powers: array_at(&rows.powers, row) };
            let biases = (!biases.is_empty()).then(biased);
            let tile = FixedTile { factors, zeros, scales, sums: offsets, stride, biases };
            isa.fixed_scores(queries.rows(row).0, panel, k, &tile, &mut weights[row * stride + left..]);
        }
    }
    for ((row, fraction), sum) in weights.chunks_exact_mut(stride).zip(&rows.fractions).zip(sums) {
        *sum = fraction.map_or(f32::NAN, |fraction| isa.fixed_softmax(&mut row[..tokens], fraction));
    }
}
