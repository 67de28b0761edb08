//! Reductions of rows in sixteen lanes: the same order of additions, and so the same bits, whatever the width of a register.
//!
//! Intrinsics, because compilers turn the plain form of such loops into shuffles or keep the lanes in memory.

use super::{Isa, Kind};

/// Sixteen numbers.
trait Lanes: Copy {
    fn splat(value: f32) -> Self;
    fn load(values: &[f32; 16]) -> Self;
    fn store(self) -> [f32; 16];
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    /// `self * self + sum`, rounded once.
    fn square_add(self, sum: Self) -> Self;
    /// The smaller of each pair; `other` where `self` is NaN.
    fn smaller(self, other: Self) -> Self;
    /// The larger of each pair; `other` where `self` is NaN.
    fn larger(self, other: Self) -> Self;
}

impl Lanes for [f32; 16] {
    fn splat(value: f32) -> Self {
        [value; 16]
    }
    fn load(values: &[f32; 16]) -> Self {
        *values
    }
    fn store(self) -> [f32; 16] {
        self
    }
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }
    fn square_add(self, sum: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(self[i], sum[i]))
    }
    fn smaller(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] < other[i] { self[i] } else { other[i] })
    }
    fn larger(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }
}

/// Calls `step` with sixteen values after the other, the last ones filled up with `fill`.
#[inline(always)]
fn fold<L: Lanes, S>(row: &[f32], fill: f32, start: S, step: impl Fn(S, L) -> S) -> S {
    let (chunks, rest) = row.as_chunks::<16>();
    let mut state = start;
    for chunk in chunks {
        state = step(state, L::load(chunk));
    }
    if !rest.is_empty() {
        let mut last = [fill; 16];
        last[..rest.len()].copy_from_slice(rest);
        state = step(state, L::load(&last));
    }
    state
}

/// The sum of the lanes, pairwise.
#[inline(always)]
fn total(lanes: [f32; 16]) -> f32 {
    let mut l = lanes;
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            l[i] += l[i + width];
        }
    }
    l[0]
}

#[inline(always)]
fn sum<L: Lanes>(row: &[f32]) -> f32 {
    total(fold(row, 0.0, L::splat(0.0), |sum, values: L| sum.add(values)).store())
}

#[inline(always)]
fn moments<L: Lanes>(row: &[f32]) -> (f32, f32) {
    let mean = sum::<L>(row) / row.len() as f32;
    let squares = fold(row, mean, L::splat(0.0), |sum, values: L| values.sub(L::splat(mean)).square_add(sum));
    (mean, total(squares.store()) / row.len() as f32)
}

#[inline(always)]
fn range<L: Lanes>(row: &[f32], start: (f32, f32)) -> (f32, f32) {
    let start = (L::splat(start.0), L::splat(start.1));
    let (low, high) = fold(row, f32::NAN, start, |(low, high), values: L| (values.smaller(low), values.larger(high)));
    let low = low.store().into_iter().fold(f32::INFINITY, |a, b| if a < b { a } else { b });
    let high = high.store().into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
    (low, high)
}

/// One function of a row for every instruction set.
macro_rules! reduction {
    ($(#[$meta:meta])* $name:ident = $generic:ident($($arg:ident: $type:ty),*) -> $result:ty) => {
        impl Isa {
            $(#[$meta])*
            #[inline]
            pub fn $name(self, $($arg: $type),*) -> $result {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma")]
                fn with_avx2($($arg: $type),*) -> $result {
                    $generic::<x86_64::Avx2>($($arg),*)
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f")]
                fn with_avx512($($arg: $type),*) -> $result {
                    $generic::<x86_64::Avx512>($($arg),*)
                }
                match self.kind() {
                    Kind::Scalar => $generic::<[f32; 16]>($($arg),*),
                    // SAFETY: the token proves that the CPU has these features.
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx2 | Kind::AvxVnni => unsafe { with_avx2($($arg),*) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx512Vnni | Kind::Avx512Bf16 => unsafe { with_avx512($($arg),*) },
                    #[cfg(target_arch = "aarch64")]
                    Kind::Neon | Kind::Dotprod | Kind::I8mm => $generic::<aarch64::Neon>($($arg),*),
                }
            }
        }
    };
}

reduction! {
    /// The sum of a row.
    sum = sum(row: &[f32]) -> f32
}
reduction! {
    /// Mean and variance of a row, the mean first.
    moments = moments(row: &[f32]) -> (f32, f32)
}
reduction! {
    /// Smallest and largest of the row's values and `start`; NaN counts as nothing.
    range = range(row: &[f32], start: (f32, f32)) -> (f32, f32)
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;

    use super::Lanes;

    /// Only made where the CPU has AVX-512F.
    #[derive(Clone, Copy)]
    pub struct Avx512(__m512);

    /// Only made where the CPU has AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub struct Avx2(__m256, __m256);

    // SAFETY of every block: the functions that name these types are compiled for, and called on, CPUs with the features.
    impl Lanes for Avx512 {
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: see above.
            Avx512(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        fn load(values: &[f32; 16]) -> Self {
            // SAFETY: see above; sixteen values.
            Avx512(unsafe { _mm512_loadu_ps(values.as_ptr()) })
        }
        #[inline(always)]
        fn store(self) -> [f32; 16] {
            let mut values = [0.0; 16];
            // SAFETY: see above; sixteen values.
            unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) };
            values
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            Avx512(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: see above.
            Avx512(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn square_add(self, sum: Self) -> Self {
            // SAFETY: see above.
            Avx512(unsafe { _mm512_fmadd_ps(self.0, self.0, sum.0) })
        }
        #[inline(always)]
        fn smaller(self, other: Self) -> Self {
            // SAFETY: see above.
            Avx512(unsafe { _mm512_min_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn larger(self, other: Self) -> Self {
            // SAFETY: see above.
            Avx512(unsafe { _mm512_max_ps(self.0, other.0) })
        }
    }

    impl Lanes for Avx2 {
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: see above.
            unsafe { Avx2(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        }
        #[inline(always)]
        fn load(values: &[f32; 16]) -> Self {
            // SAFETY: see above; sixteen values.
            unsafe { Avx2(_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))) }
        }
        #[inline(always)]
        fn store(self) -> [f32; 16] {
            let mut values = [0.0; 16];
            // SAFETY: see above; sixteen values.
            unsafe {
                _mm256_storeu_ps(values.as_mut_ptr(), self.0);
                _mm256_storeu_ps(values.as_mut_ptr().add(8), self.1);
            }
            values
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Avx2(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Avx2(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn square_add(self, sum: Self) -> Self {
            // SAFETY: see above.
            unsafe { Avx2(_mm256_fmadd_ps(self.0, self.0, sum.0), _mm256_fmadd_ps(self.1, self.1, sum.1)) }
        }
        #[inline(always)]
        fn smaller(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Avx2(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn larger(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Avx2(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::*;

    use super::Lanes;

    #[derive(Clone, Copy)]
    pub struct Neon([float32x4_t; 4]);

    /// The same operation on each of the four registers.
    macro_rules! each {
        ($a:expr, $b:expr, $operation:path) => {
            // SAFETY: NEON is part of every aarch64 target.
            Neon(unsafe {
                [$operation($a.0[0], $b.0[0]), $operation($a.0[1], $b.0[1]), $operation($a.0[2], $b.0[2]), $operation($a.0[3], $b.0[3])]
            })
        };
    }

    impl Lanes for Neon {
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: NEON is part of every aarch64 target.
            Neon([unsafe { vdupq_n_f32(value) }; 4])
        }
        #[inline(always)]
        fn load(values: &[f32; 16]) -> Self {
            let at = values.as_ptr();
            // SAFETY: NEON is part of every aarch64 target; sixteen values.
            Neon(unsafe { [vld1q_f32(at), vld1q_f32(at.add(4)), vld1q_f32(at.add(8)), vld1q_f32(at.add(12))] })
        }
        #[inline(always)]
        fn store(self) -> [f32; 16] {
            let mut values = [0.0; 16];
            for (to, lanes) in values.chunks_exact_mut(4).zip(self.0) {
                // SAFETY: NEON is part of every aarch64 target; four values.
                unsafe { vst1q_f32(to.as_mut_ptr(), lanes) };
            }
            values
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            each!(self, other, vaddq_f32)
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            each!(self, other, vsubq_f32)
        }
        #[inline(always)]
        fn square_add(self, sum: Self) -> Self {
            let fma = |i: usize| {
                // SAFETY: NEON is part of every aarch64 target.
                unsafe { vfmaq_f32(sum.0[i], self.0[i], self.0[i]) }
            };
            Neon([fma(0), fma(1), fma(2), fma(3)])
        }
        #[inline(always)]
        fn smaller(self, other: Self) -> Self {
            each!(self, other, vminnmq_f32)
        }
        #[inline(always)]
        fn larger(self, other: Self) -> Self {
            each!(self, other, vmaxnmq_f32)
        }
    }
}
