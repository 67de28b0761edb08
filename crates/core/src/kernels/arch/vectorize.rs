//! Loops of other crates, compiled for the instruction set that runs them.

use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::isa::Level;

impl Isa {
    /// Runs `body`, compiled for this instruction set: the compiler vectorizes its loops as those of the kernels. It and the functions that it
    /// calls are `#[inline(always)]`, or they stay as they were compiled for every CPU of the target. Written as code for one lane or with sums in
    /// a fixed number of lanes, it computes the same bits for every instruction set.
    ///
    /// ```
    /// use eomt_edge_core::kernels::arch::Isa;
    /// let mut values = [1.0f32, 2.0];
    /// Isa::detect().vectorize(#[inline(always)] || values.iter_mut().for_each(|value| *value *= 3.0));
    /// assert_eq!(values, [3.0, 6.0]);
    /// ```
    #[inline]
    pub fn vectorize<R>(self, body: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn with_avx2<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
        fn with_avx512<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        #[cfg(target_arch = "x86_64")]
        match self.level() {
            // SAFETY: an `Avx2` token exists only where the CPU has AVX2 and FMA.
            Level::Avx2(_) => unsafe { with_avx2(body) },
            // SAFETY: an `Avx512Vnni` token exists only where the CPU has AVX2, FMA and AVX-512 F, BW, DQ and VL.
            Level::Avx512(_) => unsafe { with_avx512(body) },
            Level::Scalar => body(),
        }
        // NEON is part of every aarch64 target
        #[cfg(not(target_arch = "x86_64"))]
        body()
    }
}
