//! Peak loops of [`crate::kernels::peak`] for x86-64.
//!
//! Inline assembly, since a compiler would see that every round of such a loop computes the same and do it once. Ten
//! accumulators hide the latency: four cycles on two ports need eight.

use std::arch::asm;
use std::arch::x86_64::{_mm256_set1_epi8, _mm256_set1_ps, _mm512_set1_epi8, _mm512_set1_ps};

use super::amx;
use super::isa::Kind;

const ACCUMULATORS: u64 = 10;

/// Does `iterations` rounds and returns the multiply-accumulates done; `None` where the portable loop is the right one.
pub(crate) fn f32_macs(isa: Kind, iterations: u64) -> Option<u64> {
    let lanes = match isa {
        // SAFETY: these tokens exist only where the CPU has AVX-512 F.
        Kind::Avx512Vnni(_) | Kind::Avx512Bf16(_) | Kind::Amx(_) => unsafe { fma_zmm(iterations) },
        // SAFETY: these tokens exist only where the CPU has AVX2 and FMA.
        Kind::AvxVnni(_) | Kind::Avx2(_) => unsafe { fma_ymm(iterations) },
        Kind::Scalar => return None,
    };
    Some(iterations * ACCUMULATORS * lanes)
}

/// As [`f32_macs`], for exact products of bytes.
pub(crate) fn int8_macs(isa: Kind, iterations: u64) -> Option<u64> {
    let lanes = match isa {
        // SAFETY: these tokens exist only where the CPU has AVX-512 F and VNNI.
        Kind::Avx512Vnni(_) | Kind::Avx512Bf16(_) => unsafe { dot_zmm(iterations) },
        Kind::Amx(token) => amx::peak(token, iterations),
        // SAFETY: an `AvxVnni` token exists only where the CPU has AVX2 and AVX-VNNI.
        Kind::AvxVnni(_) => unsafe { dot_ymm(iterations) },
        // SAFETY: an `Avx2` token exists only where the CPU has AVX2.
        Kind::Avx2(_) => unsafe { madd_ymm(iterations) },
        Kind::Scalar => return None,
    };
    Some(iterations * ACCUMULATORS * lanes)
}

/// Zeroes accumulators 0 to 9 of a register class, then repeats `$step` on each of them (`\r` is its number) `$iterations`
/// times. Registers 10 to 12 belong to the step; those of `$inputs` are set before.
macro_rules! repeat {
    ($iterations:expr, $step:literal $(, $step2:literal)?; $($inputs:tt)*) => {
        // `iterations` rounds: zero would wrap around
        if $iterations > 0 {
            asm!(
                ".irp r,0,1,2,3,4,5,6,7,8,9",
                "vxorps ymm\\r, ymm\\r, ymm\\r",
                ".endr",
                "2:",
                ".irp r,0,1,2,3,4,5,6,7,8,9",
                $step,
                $($step2,)?
                ".endr",
                "dec {rounds}",
                "jnz 2b",
                rounds = inout(reg) $iterations => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
                out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _,
                $($inputs)*,
                options(nomem, nostack),
            );
        }
    };
}

/// # Safety
/// The CPU has AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn fma_zmm(iterations: u64) -> u64 {
    let half = _mm512_set1_ps(0.5);
    // SAFETY: AVX-512F instructions, which the caller vouches for, on registers that the block declares; no memory.
    unsafe {
        repeat!(iterations, "vfmadd231ps zmm\\r, zmm10, zmm11"; in("zmm10") half, in("zmm11") half);
    }
    16
}

/// # Safety
/// The CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn fma_ymm(iterations: u64) -> u64 {
    let half = _mm256_set1_ps(0.5);
    // SAFETY: FMA instructions, which the caller vouches for, on registers that the block declares; no memory.
    unsafe {
        repeat!(iterations, "vfmadd231ps ymm\\r, ymm10, ymm11"; in("ymm10") half, in("ymm11") half);
    }
    8
}

/// # Safety
/// The CPU has AVX-512F and AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dot_zmm(iterations: u64) -> u64 {
    let three = _mm512_set1_epi8(3);
    // SAFETY: VNNI instructions, which the caller vouches for, on registers that the block declares; no memory.
    unsafe {
        repeat!(iterations, "vpdpbusd zmm\\r, zmm10, zmm11"; in("zmm10") three, in("zmm11") three);
    }
    64
}

/// # Safety
/// The CPU has AVX2 and AVX-VNNI.
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn dot_ymm(iterations: u64) -> u64 {
    let three = _mm256_set1_epi8(3);
    // SAFETY: AVX-VNNI instructions, which the caller vouches for, on registers that the block declares; no memory.
    unsafe {
        repeat!(iterations, "{{vex}} vpdpbusd ymm\\r, ymm10, ymm11"; in("ymm10") three, in("ymm11") three);
    }
    32
}

/// 8-bit values widened to 16 bits: `vpmaddubsw` would be twice as fast, but its 16-bit sums saturate.
///
/// # Safety
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn madd_ymm(iterations: u64) -> u64 {
    let three = _mm256_set1_epi8(3);
    // SAFETY: AVX2 instructions, which the caller vouches for, on registers that the block declares; no memory.
    unsafe {
        repeat!(
            iterations,
            "vpmaddwd ymm12, ymm10, ymm11",
            "vpaddd ymm\\r, ymm\\r, ymm12";
            in("ymm10") three, in("ymm11") three, out("ymm12") _
        );
    }
    16
}
