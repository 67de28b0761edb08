//! The suite that every kernel passes: its definition, every tail length, saturation, numbers that are none, unaligned slices, and the
//! same bits on every instruction set of this CPU. Tests only.
//!
//! A kernel's own tests say what its definition is; what it is tried on, and where, stands here alone.

use std::fmt::Debug;

use super::arch::Isa;
use super::testing::numbers;

/// Results that are compared bit by bit; all NaN are one.
pub trait Bits: Debug {
    fn same(&self, other: &Self) -> bool;
}

impl Bits for f32 {
    fn same(&self, other: &f32) -> bool {
        self.to_bits() == other.to_bits() || (self.is_nan() && other.is_nan())
    }
}

macro_rules! whole_numbers {
    ($($type:ty)+) => {$(
        impl Bits for $type {
            fn same(&self, other: &$type) -> bool {
                self == other
            }
        }
    )+};
}
whole_numbers!(() i8 u8 i32 u16 u32 usize);

impl<A: Bits, B: Bits> Bits for (A, B) {
    fn same(&self, other: &(A, B)) -> bool {
        self.0.same(&other.0) && self.1.same(&other.1)
    }
}

impl<T: Bits> Bits for [T] {
    fn same(&self, other: &[T]) -> bool {
        self.len() == other.len() && self.iter().zip(other).all(|(a, b)| a.same(b))
    }
}

impl<T: Bits> Bits for Vec<T> {
    fn same(&self, other: &Vec<T>) -> bool {
        self[..].same(&other[..])
    }
}

impl<T: Bits, const N: usize> Bits for [T; N] {
    fn same(&self, other: &[T; N]) -> bool {
        self[..].same(&other[..])
    }
}

/// Calls `check` for every instruction set of this CPU, the scalar one first.
pub fn each_isa(check: impl FnMut(Isa)) {
    Isa::available().into_iter().for_each(check);
}

/// What `kernel` gives on scalar code, and on every other instruction set to the bit.
pub fn everywhere<R: Bits>(case: impl Debug, mut kernel: impl FnMut(Isa) -> R) -> R {
    let expected = kernel(Isa::SCALAR);
    each_isa(|isa| {
        let ours = kernel(isa);
        assert!(ours.same(&expected), "{case:?} on {}: {ours:?} instead of {expected:?}", isa.name());
    });
    expected
}

/// Rows of ordinary numbers in -`scale`..`scale`: every length up to 70, so that every tail of a vector occurs, and some long ones.
pub fn tails(scale: f32) -> Vec<Vec<f32>> {
    let row = |len: usize| numbers(len, len as u32 + 1).iter().map(|value| value * scale).collect();
    (1..=70).chain([133, 384, 405, 1024, 1605]).map(row).collect()
}

/// Rows of what is not ordinary: zeros of both signs, subnormal numbers, ties, the largest numbers, infinities, and NaN at the ends and
/// in the middle of whole vectors and of tails.
pub fn extremes() -> Vec<Vec<f32>> {
    let mut rows = vec![
        vec![0.0; 40],
        vec![-0.0; 17],
        vec![-0.0, 1e-40, -1e-38, 0.0],
        vec![f32::NAN, 1.0, -2.0, 0.5, f32::NAN],
        vec![f32::NAN; 35],
        vec![f32::INFINITY, -1.0, f32::NEG_INFINITY],
        vec![f32::MAX, -f32::MAX, 1.0],
        (-127..=127).map(|i| i as f32 + 0.5).collect(),
        [[1e30, -1e30, 0.0, -0.0, 1e-40]; 9].concat(),
        [[300.0, -300.0, 127.5, -128.5]; 8].concat(),
    ];
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        for at in [0, 15, 16, 31, 32, 39] {
            let mut row = numbers(40, 5);
            row[at] = special;
            rows.push(row);
        }
    }
    rows
}

/// Offsets in values at which slices start: a vector is aligned at the first only.
const OFFSETS: [usize; 4] = [0, 1, 3, 6];

/// A copy of `values` at an offset in memory that is aligned to a cache line.
fn shifted<T: Copy>(values: &[T], offset: usize, filler: T) -> (Vec<T>, std::ops::Range<usize>) {
    let mut memory = vec![filler; values.len() + 64 + offset + 8];
    // where the next cache line begins, in values
    let aligned = memory.as_ptr().align_offset(64);
    let range = aligned + offset..aligned + offset + values.len();
    memory[range.clone()].copy_from_slice(values);
    (memory, range)
}

/// Runs `kernel(isa, row, to)` on every row, instruction set and alignment. `to` has `len(row length)` values and starts as `filler`.
///
/// Checks that the results have the bits of the scalar ones, that nothing around `to` was written, and `definition(row, to, result)`.
pub fn rows<T: Bits + Copy, R: Bits>(
    rows: &[Vec<f32>],
    filler: T,
    len: impl Fn(usize) -> usize,
    kernel: impl Fn(Isa, &[f32], &mut [T]) -> R,
    definition: impl Fn(&[f32], &[T], &R),
) {
    for row in rows {
        let start = vec![filler; len(row.len())];
        let mut expected = start.clone();
        let result = kernel(Isa::SCALAR, row, &mut expected);
        definition(row, &expected, &result);
        each_isa(|isa| {
            for offset in OFFSETS {
                let (from, range) = shifted(row, offset, f32::NAN);
                let (mut to, to_range) = shifted(&start, offset, filler);
                let ours = kernel(isa, &from[range], &mut to[to_range.clone()]);
                let case = || format!("{} values at offset {offset} on {}: {row:?}", row.len(), isa.name());
                assert!(ours.same(&result), "{}: {ours:?} instead of {result:?}", case());
                assert!(to[to_range.clone()].same(&expected), "{}: {:?} instead of {expected:?}", case(), &to[to_range.clone()]);
                let outside = to[..to_range.start].iter().chain(&to[to_range.end..]);
                assert!(outside.into_iter().all(|value| value.same(&filler)), "{}: written outside", case());
            }
        });
    }
}

/// [`rows`] of a kernel that changes a row in place.
pub fn in_place<R: Bits>(all: &[Vec<f32>], kernel: impl Fn(Isa, &mut [f32]) -> R, definition: impl Fn(&[f32], &[f32], &R)) {
    let copied = |isa: Isa, row: &[f32], to: &mut [f32]| {
        to.copy_from_slice(row);
        kernel(isa, to)
    };
    rows(all, 7.0, |len| len, copied, definition);
}
