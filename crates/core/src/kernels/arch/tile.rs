//! The shapes of the tiles that matrix products are made of, per instruction set.

use super::isa::{Isa, Kind};

/// The shape of an int8 tile: `mr` rows of activations times a panel of `nr` columns, `kr` consecutive values at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DotTile {
    /// Rows of activations.
    pub mr: usize,
    /// Columns of a panel.
    pub nr: usize,
    /// A panel is `[k / kr][nr][kr]`.
    pub kr: usize,
    /// Values along k that the tile takes in one step: activations and panels are padded to a multiple of it.
    pub k_step: usize,
    /// The type of the activations.
    pub form: ActivationForm,
    /// Activations lie as `[rows / mr][k / K_STEP][mr][K_STEP]`, so that a tile reads them one after the other; else row by row.
    pub interleaved: bool,
}

impl DotTile {
    /// `k` with its padding.
    #[inline(always)]
    pub fn padded(self, k: usize) -> usize {
        k.next_multiple_of(self.k_step)
    }
}

/// The type in which a tile takes quantized activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationForm {
    /// i8.
    Signed,
    /// i8 + 128 as u8.
    Offset,
    /// i16.
    Wide,
}

impl ActivationForm {
    /// Bytes of one activation.
    pub fn bytes(self) -> usize {
        if self == ActivationForm::Wide { 2 } else { 1 }
    }

    /// The number that is added to an i8 to give this form.
    pub fn offset(self) -> i32 {
        if self == ActivationForm::Offset { 128 } else { 0 }
    }
}

/// The shape of an f32 tile: `mr` rows times a panel `[k][nr]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FmaTile {
    /// Rows of activations.
    pub mr: usize,
    /// Columns of a panel.
    pub nr: usize,
}

/// The shape of a half-precision tile: `mr` rows times a panel `[k / kr][nr][kr]`, both in the instruction set's own 16-bit format,
/// summed in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfTile {
    /// Rows of activations.
    pub mr: usize,
    /// Columns of a panel.
    pub nr: usize,
    /// Consecutive values along k that lie side by side in a panel.
    pub kr: usize,
    /// Values along k that the tile takes in one step: rows and panels are padded to a multiple of it, with zeros.
    pub k_step: usize,
    /// The format, and the order of the additions.
    pub sums: HalfSums,
}

impl HalfTile {
    /// `k` with its padding.
    #[inline(always)]
    pub fn padded(self, k: usize) -> usize {
        k.next_multiple_of(self.k_step)
    }
}

/// How a half-precision tile sums its products; the definitions are in [`half::multiply`](super::half_multiply).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfSums {
    /// bfloat16, two products after the other: `vdpbf16ps`.
    Pairs,
    /// bfloat16, those of even and of odd elements apart: `tdpbf16ps`.
    EvenAndOdd,
    /// IEEE binary16, runs in half precision and their sums in f32: `fmla`.
    Runs,
}

/// Products that [`HalfSums::Runs`] adds in half precision before the sum moves on to f32: the error of that many additions, which is 2^-11 of
/// the sum at most in each and differs in sign, stays at a few thousandths.
pub const F16_RUN: usize = 128;

/// Rows and columns of [`LinearTile`].
pub const LINEAR_TILE: usize = 8;

/// What [`Isa::linear_tile`](super::Isa::linear_tile) does to the products.
#[derive(Debug, Clone, Copy)]
pub struct LinearTile<'a> {
    /// Per row: the size of a step.
    pub scales: &'a [f32; LINEAR_TILE],
    /// Per row: the zero point.
    pub zeros: &'a [f32; LINEAR_TILE],
    /// Per column: the sum of its weights.
    pub sums: &'a [f32; LINEAR_TILE],
    /// Per column.
    pub column_scales: &'a [f32; LINEAR_TILE],
    /// Per column.
    pub bias: &'a [f32; LINEAR_TILE],
    /// Values from the start of an output row to the start of the next.
    pub stride: usize,
}

/// Rows of a tile of scores.
pub const FIXED_ROWS: usize = 8;
/// Columns of a tile of scores.
pub const FIXED_COLUMNS: usize = 8;
/// Weights of a row that are added in half precision, eight sums side by side, before those go to f32.
pub(super) const SUM_RUN: usize = 128;
/// `weight = (4 + 4 fraction + SHIFT)^2 + BASE`, our own fit of least relative error: 0.17 %, with the rounding to binary16 0.21 %. -11.90625.
pub(super) const SHIFT: u16 = 0xc9f4;
/// See [`SHIFT`]. 32.3125.
pub(super) const BASE: u16 = 0x500a;
/// 4.0: the exponent under which a fraction becomes a number.
pub(super) const FOUR: u16 = 0x4400;
/// The bits of the fraction.
pub(super) const FRACTION: u16 = 0x03ff;

/// Factors of a tile's scores.
#[derive(Debug, Clone, Copy)]
pub struct FixedTile<'a> {
    /// Per row: scale of the row, of all scores, and of the fixed point.
    pub factors: &'a [f32; FIXED_ROWS],
    /// Per row: the zero point.
    pub zeros: &'a [f32; FIXED_ROWS],
    /// Per column.
    pub scales: &'a [f32; FIXED_COLUMNS],
    /// Per column: the sum of its integers times its scale.
    pub sums: &'a [f32; FIXED_COLUMNS],
    /// Values from the start of an output row to the start of the next.
    pub stride: usize,
    /// What is added to each key's scores; `None`: nothing.
    pub biases: Option<FixedBiases<'a>>,
}

/// Biases of keys in a tile of scores in fixed point: each is multiplied by a power of each row's.
#[derive(Debug, Clone, Copy)]
pub struct FixedBiases<'a> {
    /// Of each key, in powers of two.
    pub keys: &'a [f32; FIXED_COLUMNS],
    /// Of each row: 2 to the power of its bits of fraction.
    pub powers: &'a [f32; FIXED_ROWS],
}

/// 1.5 * 2^23, to which an integer of up to 22 bits is added without rounding, and whose bits plus the integer are those of the sum.
pub(super) const MAGIC: f32 = 12_582_912.0;

/// Values of the largest tile of any instruction set.
pub const TILE_MAX: usize = 1024;

/// The accumulators of one tile, row-major `[mr][nr]`.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub struct TileOf<T>(pub [T; TILE_MAX]);

/// Values of a row that lie side by side where rows are interleaved, and the step along k of every int8 tile but that of matrix registers.
pub const K_STEP: usize = 16;

/// Lines of a panel of factors in two bfloat16: rows of the left factor, columns of the right one.
pub const SPLIT_LINES: usize = 16;
/// Values of such a panel for 32 along the sums: the upper parts of 16 lines, then the lower ones.
pub const SPLIT_STEP: usize = 1024;
/// Values along the sums in such a step.
const SPLIT_DEPTH: usize = 32;

/// Values of a panel of factors in two bfloat16 whose lines have this length.
pub fn split_len(depth: usize) -> usize {
    depth.div_ceil(SPLIT_DEPTH) * SPLIT_STEP
}

/// What a panel is packed for. Both hold pairs of values 16 apart along the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The left factor: 16 pairs of a line after another.
    Left,
    /// The right factor: a pair of each line after another.
    Right,
}

/// Rows of the left factor or columns of the right one, in f32: value `i` of line `l` lies at `l * strides[0] + i * strides[1]`, and one of the
/// strides is 1.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a> {
    /// From the first value on.
    pub values: &'a [f32],
    /// How many, at most [`SPLIT_LINES`].
    pub count: usize,
    /// Values of a line.
    pub depth: usize,
    /// From line to line, and along a line.
    pub strides: [usize; 2],
    /// Each value is multiplied by it.
    pub factor: f32,
}

impl Isa {
    /// The int8 tile.
    pub fn dot_tile(self) -> DotTile {
        match self.kind() {
            Kind::Scalar => DotTile { mr: 4, nr: 4, kr: 1, k_step: K_STEP, form: ActivationForm::Signed, interleaved: false },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => DotTile { mr: 6, nr: 16, kr: 2, k_step: K_STEP, form: ActivationForm::Wide, interleaved: false },
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni(_) => DotTile { mr: 6, nr: 16, kr: 4, k_step: K_STEP, form: ActivationForm::Offset, interleaved: false },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni(_) | Kind::Avx512Bf16(_) => {
                DotTile { mr: 12, nr: 32, kr: 4, k_step: K_STEP, form: ActivationForm::Offset, interleaved: false }
            }
            #[cfg(target_arch = "x86_64")]
            Kind::Amx(_) => DotTile { mr: 32, nr: 32, kr: 4, k_step: 64, form: ActivationForm::Offset, interleaved: false },
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(_) => DotTile { mr: 8, nr: 8, kr: 16, k_step: K_STEP, form: ActivationForm::Signed, interleaved: true },
            #[cfg(target_arch = "aarch64")]
            Kind::Dotprod(_) => DotTile { mr: 8, nr: 8, kr: 4, k_step: K_STEP, form: ActivationForm::Signed, interleaved: true },
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm(_) => DotTile { mr: 8, nr: 8, kr: 8, k_step: K_STEP, form: ActivationForm::Signed, interleaved: true },
        }
    }

    /// Rows that are whole tiles of every kind: what a block of rows should be a multiple of.
    pub fn tile_rows(self) -> usize {
        self.dot_tile().mr.max(self.fma_tile().mr)
    }

    /// The f32 tile.
    pub fn fma_tile(self) -> FmaTile {
        match self.kind() {
            Kind::Scalar => FmaTile { mr: 4, nr: 4 },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) | Kind::AvxVnni(_) => FmaTile { mr: 6, nr: 16 },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni(_) | Kind::Avx512Bf16(_) => FmaTile { mr: 12, nr: 32 },
            // a divisor of the other tiles' rows
            #[cfg(target_arch = "x86_64")]
            Kind::Amx(_) => FmaTile { mr: 8, nr: 32 },
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(_) | Kind::Dotprod(_) | Kind::I8mm(_) => FmaTile { mr: 8, nr: 8 },
        }
    }

    /// The half-precision tile of instruction sets whose 16-bit products are faster than f32.
    pub fn half_tile(self) -> Option<HalfTile> {
        match self.kind() {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16(_) => Some(HalfTile { mr: 12, nr: 32, kr: 2, k_step: 2, sums: HalfSums::Pairs }),
            #[cfg(target_arch = "x86_64")]
            Kind::Amx(_) => Some(HalfTile { mr: 32, nr: 32, kr: 2, k_step: 32, sums: HalfSums::EvenAndOdd }),
            #[cfg(target_arch = "aarch64")]
            Kind::Dotprod(_) | Kind::I8mm(_) => Some(HalfTile { mr: 8, nr: 16, kr: 1, k_step: 1, sums: HalfSums::Runs }),
            _ => None,
        }
    }
}
