//! Packed weights: right-hand sides of matrix products in the order in which the tiles of an instruction set read them.

use super::arch::{Aligned, HalfFormat, HalfTile, Isa};
use super::columns::{array_at, array_at_mut, column_chunks};

/// An int8 matrix `[k, n]` with one scale per column, packed as panels `[n / nr][k / kr][nr][kr]`; the padding is zero.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedI8 {
    isa: Isa,
    k: usize,
    n: usize,
    data: Aligned<i8>,
    /// The sum of each column, padded: the epilogue multiplies it by the zero point.
    sums: Vec<i32>,
    /// Per column, padded.
    scales: Vec<f32>,
    /// The sum of the magnitudes of each column, padded.
    magnitudes: Vec<i32>,
}

/// `values` into column `at` of a panel `[k / KR][nr][KR]`.
#[inline(always)]
fn scatter<const KR: usize>(values: &[i8], panel: &mut [i8], nr: usize, at: usize) {
    let (groups, rest) = values.as_chunks::<KR>();
    let (slots, _) = panel.as_chunks_mut::<KR>();
    for (index, group) in groups.iter().enumerate() {
        slots[index * nr + at] = *group;
    }
    if !rest.is_empty() {
        slots[groups.len() * nr + at][..rest.len()].copy_from_slice(rest);
    }
}

impl PackedI8 {
    /// Room for a `[k, n]` matrix, all zero.
    pub fn zeros(isa: Isa, k: usize, n: usize) -> PackedI8 {
        let mut panels =
            PackedI8 { isa, k: 0, n: 0, data: Aligned::default(), sums: Vec::new(), scales: Vec::new(), magnitudes: Vec::new() };
        panels.resize(k, n);
        panels
    }

    /// Makes room for a `[k, n]` matrix; [`PackedI8::set_column`] then sets its content.
    pub fn resize(&mut self, k: usize, n: usize) {
        let tile = self.isa.dot_tile();
        let columns = n.next_multiple_of(tile.nr);
        self.data.resize(columns * tile.padded(k));
        if k != self.k {
            // the padding of a column lies elsewhere now
            self.data.fill(0);
        }
        (self.k, self.n) = (k, n);
        self.sums.resize(columns, 0);
        self.scales.resize(columns, 0.0);
        self.magnitudes.resize(columns, 0);
    }

    /// Packs weights `[k, n]` (row-major, none of them -128) with one scale per column.
    pub fn pack(isa: Isa, weights: &[i8], scales: &[f32], k: usize, n: usize) -> PackedI8 {
        assert!(weights.len() == k * n && scales.len() == n);
        let mut panels = PackedI8::zeros(isa, k, n);
        let mut column = vec![0i8; k];
        for c in 0..n {
            column.iter_mut().zip(weights[c..].iter().step_by(n)).for_each(|(to, from)| *to = *from);
            panels.set_column(c, &column, scales[c]);
        }
        panels
    }

    /// Sets column `c` to `values` times `scale`.
    #[inline(always)]
    pub fn set_column(&mut self, c: usize, values: &[i8], scale: f32) {
        assert!(c < self.n && values.len() == self.k);
        let tile = self.isa.dot_tile();
        let len = tile.nr * tile.padded(self.k);
        let panel = &mut self.data[c / tile.nr * len..][..len];
        let at = c % tile.nr;
        match tile.kr {
            1 => scatter::<1>(values, panel, tile.nr, at),
            2 => scatter::<2>(values, panel, tile.nr, at),
            4 => scatter::<4>(values, panel, tile.nr, at),
            8 => scatter::<8>(values, panel, tile.nr, at),
            _ => scatter::<16>(values, panel, tile.nr, at),
        }
        let (mut sum, mut magnitude) = (0i32, 0i32);
        for value in values {
            sum += i32::from(*value);
            magnitude += i32::from(*value).abs();
        }
        self.sums[c] = sum;
        self.magnitudes[c] = magnitude;
        self.scales[c] = scale;
    }

    /// Rows of the matrix, without padding.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of the matrix, without padding.
    pub fn n(&self) -> usize {
        self.n
    }

    /// One scale per column, padded to whole panels.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Sums of the columns, padded to whole panels.
    pub fn sums(&self) -> &[i32] {
        &self.sums
    }

    /// Whether no activations, as i8, give a sum of 2^22 or more with a column of panel number `index`.
    pub fn is_small(&self, index: usize) -> bool {
        let nr = self.isa.dot_tile().nr;
        // activations reach 128 in magnitude
        self.magnitudes[index * nr..self.n.min((index + 1) * nr)].iter().all(|magnitude| *magnitude < (1 << 22) / 128)
    }

    /// Panel number `index`.
    pub fn panel(&self, index: usize) -> &[i8] {
        let tile = self.isa.dot_tile();
        let len = tile.nr * tile.padded(self.k);
        &self.data[index * len..][..len]
    }
}

/// An f32 matrix `[k, n]`, packed as panels `[n / nr][k][nr]`; the padding is zero.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedF32 {
    nr: usize,
    k: usize,
    n: usize,
    data: Aligned<f32>,
}

impl PackedF32 {
    /// Room for a `[k, n]` matrix, all zero.
    pub fn zeros(isa: Isa, k: usize, n: usize) -> PackedF32 {
        let mut panels = PackedF32 { nr: isa.fma_tile().nr, k: 0, n: 0, data: Aligned::default() };
        panels.resize(k, n);
        panels
    }

    /// Makes room for a `[k, n]` matrix; [`PackedF32::set_row`] or [`PackedF32::set_column`] then sets its
    /// content.
    pub fn resize(&mut self, k: usize, n: usize) {
        (self.k, self.n) = (k, n);
        self.data.resize(n.next_multiple_of(self.nr) * k);
    }

    /// Packs `[k, n]` (row-major).
    pub fn pack(isa: Isa, weights: &[f32], k: usize, n: usize) -> PackedF32 {
        assert_eq!(weights.len(), k * n);
        let mut panels = PackedF32::zeros(isa, k, n);
        if n > 0 {
            weights.chunks_exact(n).enumerate().for_each(|(i, row)| panels.set_row(i, row));
        }
        panels
    }

    /// Sets row `i` (one value along k, all columns).
    #[inline(always)]
    pub fn set_row(&mut self, i: usize, row: &[f32]) {
        assert!(i < self.k && row.len() == self.n);
        let (nr, k) = (self.nr, self.k);
        for (index, values) in row.chunks(nr).enumerate() {
            let to = &mut self.data[(index * k + i) * nr..][..values.len()];
            column_chunks!(values.len(), |at, W| *array_at_mut::<_, W>(to, at) = *array_at::<_, W>(values, at));
        }
    }

    /// Sets column `c` (all values along k).
    pub fn set_column(&mut self, c: usize, values: &[f32]) {
        assert!(c < self.n && values.len() == self.k);
        let panel = &mut self.data[c / self.nr * self.nr * self.k..][..self.nr * self.k];
        panel.iter_mut().skip(c % self.nr).step_by(self.nr).zip(values).for_each(|(to, from)| *to = *from);
    }

    /// Rows of the matrix, without padding.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of the matrix, without padding.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Panel number `index`.
    pub fn panel(&self, index: usize) -> &[f32] {
        &self.data[index * self.nr * self.k..][..self.nr * self.k]
    }
}

/// A matrix `[k, n]` in half precision, packed as panels `[n / nr][k / kr][nr][kr]`; the padding is zero.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedHalf {
    isa: Isa,
    tile: HalfTile,
    k: usize,
    n: usize,
    data: Aligned<u16>,
    /// One row or column after conversion.
    row: Vec<u16>,
}

impl PackedHalf {
    /// Empty; `None` on an instruction set without half-precision products.
    pub fn new(isa: Isa) -> Option<PackedHalf> {
        isa.half_tile().map(|tile| PackedHalf { isa, tile, k: 0, n: 0, data: Aligned::default(), row: Vec::new() })
    }

    /// Makes room for a `[k, n]` matrix; the setters then set its content.
    pub fn resize(&mut self, k: usize, n: usize) {
        let HalfTile { nr, kr, .. } = self.tile;
        let depth = self.tile.padded(k);
        self.data.resize(n.next_multiple_of(nr) * depth);
        if k != self.k && depth > 0 {
            // the padding lies elsewhere now; the setters fill what is left of a step of `kr`
            let whole = nr * k.next_multiple_of(kr);
            self.data.chunks_exact_mut(nr * depth).for_each(|panel| panel[whole..].fill(0));
        }
        (self.k, self.n) = (k, n);
    }

    /// `k` with its padding.
    pub fn depth(&self) -> usize {
        self.tile.padded(self.k)
    }

    /// Rows of the matrix, without padding.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of the matrix, without padding.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Sets the rows `i` and, where there is one, `i + 1` (all columns); i is even, since some tiles take pairs along k.
    #[inline(always)]
    pub fn set_rows(&mut self, i: usize, row: &[f32], next: Option<&[f32]>) {
        let (HalfTile { nr, kr, .. }, depth, n) = (self.tile, self.depth(), self.n);
        assert!(i < self.k && i.is_multiple_of(2) && row.len() == n && next.is_none_or(|next| next.len() == n));
        self.row.resize(self.row.len().max(2 * n), 0);
        let (upper, lower) = self.row[..2 * n].split_at_mut(n);
        self.isa.round_half(row, 1.0, upper);
        match next {
            Some(next) => self.isa.round_half(next, 1.0, lower),
            None => lower.fill(0),
        }
        for (index, first) in (0..n).step_by(nr).enumerate() {
            let (columns, at) = (nr.min(n - first), (index * depth + i) * nr);
            let (upper, lower) = (&upper[first..first + columns], &lower[first..first + columns]);
            if kr == 2 {
                let pairs = self.data[at..at + 2 * columns].as_chunks_mut::<2>().0;
                for ((pair, a), b) in pairs.iter_mut().zip(upper).zip(lower) {
                    *pair = [*a, *b];
                }
            } else {
                self.data[at..at + columns].copy_from_slice(upper);
                if next.is_some() {
                    self.data[at + nr..at + nr + columns].copy_from_slice(lower);
                }
            }
        }
    }

    /// Sets row `i` alone (all columns); its neighbour stays as it is.
    #[inline(always)]
    pub fn set_row(&mut self, i: usize, row: &[f32]) {
        let (HalfTile { nr, kr, .. }, depth, n) = (self.tile, self.depth(), self.n);
        assert!(i < self.k && row.len() == n);
        self.row.resize(self.row.len().max(n), 0);
        self.isa.round_half(row, 1.0, &mut self.row[..n]);
        for (index, values) in self.row[..n].chunks(nr).enumerate() {
            let at = (index * depth + i / kr * kr) * nr + i % kr;
            self.data[at..].iter_mut().step_by(kr).zip(values).for_each(|(to, from)| *to = *from);
        }
    }

    /// All values times a power of two, rounded where they leave the format's normal numbers.
    pub fn scale(&mut self, power: f32) {
        for value in self.data.iter_mut() {
            *value = HalfFormat::NATIVE.round(HalfFormat::NATIVE.widen(*value) * power);
        }
    }

    /// Sets column `c` (all values along k).
    pub fn set_column(&mut self, c: usize, values: &[f32]) {
        assert!(c < self.n && values.len() == self.k);
        let (HalfTile { nr, kr, .. }, depth) = (self.tile, self.depth());
        self.row.resize(self.row.len().max(depth), 0);
        self.isa.round_half(values, 1.0, &mut self.row[..depth]);
        let panel = &mut self.data[c / nr * nr * depth..][..nr * depth];
        if kr == 2 {
            let pairs = panel.as_chunks_mut::<2>().0.iter_mut().skip(c % nr).step_by(nr);
            pairs.zip(self.row.as_chunks::<2>().0).for_each(|(to, pair)| *to = *pair);
        } else {
            panel.iter_mut().skip(c % nr).step_by(nr).zip(&self.row).for_each(|(to, value)| *to = *value);
        }
    }

    /// Panel number `index`.
    pub fn panel(&self, index: usize) -> &[u16] {
        let len = self.tile.nr * self.depth();
        &self.data[index * len..][..len]
    }
}

/// Rows of activations in half precision, padded to whole tiles.
#[derive(Debug, Default)]
pub struct HalfRows {
    values: Aligned<u16>,
    /// Values from one row to the next: each row at a cache line, as matrix registers load 64 bytes at a time.
    stride: usize,
}

impl HalfRows {
    /// Makes room for `count` rows of `depth` values ([`PackedHalf::depth`]); [`HalfRows::set_row`] then sets their content.
    pub fn resize(&mut self, isa: Isa, count: usize, depth: usize) {
        self.stride = depth.next_multiple_of(32);
        let mr = isa.half_tile().expect("it packed the weights").mr;
        self.values.resize(count.next_multiple_of(mr) * self.stride);
    }

    /// Row `i`; what is left of its last step along k becomes zero.
    pub fn set_row(&mut self, isa: Isa, i: usize, values: &[f32]) {
        self.set_scaled_row(isa, i, values, 1.0);
    }

    /// [`HalfRows::set_row`] of the values times `factor`.
    pub fn set_scaled_row(&mut self, isa: Isa, i: usize, values: &[f32], factor: f32) {
        isa.round_half(values, factor, &mut self.values[i * self.stride..][..self.stride]);
    }

    /// [`HalfRows::set_row`] of the values' GELU ([`Isa::gelu_rough`]).
    pub fn set_gelu_row(&mut self, isa: Isa, i: usize, values: &[f32]) {
        isa.gelu_half(values, &mut self.values[i * self.stride..][..self.stride]);
    }

    /// [`HalfRows::rows`], to write.
    pub fn rows_mut(&mut self, first: usize) -> (&mut [u16], usize) {
        (&mut self.values[first * self.stride..], self.stride)
    }

    /// The rows from `first` on, and the values from one to the next.
    pub fn rows(&self, first: usize) -> (&[u16], usize) {
        (&self.values[first * self.stride..], self.stride)
    }
}
