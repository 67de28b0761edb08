//! Peak loops of [`crate::kernels::peak`] for 64-bit ARM.
//!
//! Inline assembly, since a compiler would see that every round of such a loop computes the same and do it once, and because the
//! dot product intrinsics are not stable. Ten accumulators hide the latency: four cycles on two pipes need eight.

use std::arch::aarch64::{vdupq_n_f32, vdupq_n_s8};
use std::arch::asm;

use super::isa::Kind;

const ACCUMULATORS: u64 = 10;

/// Does `iterations` rounds and returns the multiply-accumulates done; `None` where the portable loop is the right one.
pub(crate) fn f32_macs(isa: Kind, iterations: u64) -> Option<u64> {
    if isa == Kind::Scalar {
        return None;
    }
    // SAFETY: NEON is part of every aarch64 target.
    let lanes = unsafe { fmla(iterations) };
    Some(iterations * ACCUMULATORS * lanes)
}

/// As [`f32_macs`], for exact products of bytes.
pub(crate) fn int8_macs(isa: Kind, iterations: u64) -> Option<u64> {
    let lanes = match isa {
        // SAFETY: an `I8mm` token exists only where the CPU has the 8-bit matrix multiply.
        Kind::I8mm(_) => unsafe { smmla(iterations) },
        // SAFETY: a `Dotprod` token exists only where the CPU has the dot product.
        Kind::Dotprod(_) => unsafe { sdot(iterations) },
        // SAFETY: NEON is part of every aarch64 target.
        Kind::Neon(_) => unsafe { smull(iterations) },
        Kind::Scalar => return None,
    };
    Some(iterations * ACCUMULATORS * lanes)
}

/// Zeroes v0 to v9, then repeats the steps on each of them (`\r` is its number) `$iterations` times. v16 and v17 are inputs,
/// v18 belongs to the step.
macro_rules! repeat {
    ($iterations:expr, $input:expr, $($step:literal),+) => {
        // `iterations` rounds: zero would wrap around
        if $iterations > 0 {
            asm!(
                ".irp r,0,1,2,3,4,5,6,7,8,9",
                "movi v\\r\\().4s, #0",
                ".endr",
                "2:",
                ".irp r,0,1,2,3,4,5,6,7,8,9",
                $($step,)+
                ".endr",
                "subs {rounds}, {rounds}, #1",
                "b.ne 2b",
                rounds = inout(reg) $iterations => _,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _,
                out("v5") _, out("v6") _, out("v7") _, out("v8") _, out("v9") _,
                in("v16") $input, in("v17") $input, out("v18") _,
                options(nomem, nostack),
            );
        }
    };
}

/// # Safety
/// The CPU has NEON.
#[target_feature(enable = "neon")]
unsafe fn fmla(iterations: u64) -> u64 {
    // SAFETY: NEON instructions, which the caller vouches for, on registers that the block declares; no memory.
    unsafe {
        repeat!(iterations, vdupq_n_f32(0.5), "fmla v\\r\\().4s, v16.4s, v17.4s");
    }
    4
}

/// # Safety
/// The CPU has the int8 matrix multiply extension.
#[target_feature(enable = "neon,i8mm")]
unsafe fn smmla(iterations: u64) -> u64 {
    // SAFETY: i8mm instructions, which the caller vouches for, on registers that the block declares; no memory.
    unsafe {
        repeat!(iterations, vdupq_n_s8(3), "smmla v\\r\\().4s, v16.16b, v17.16b");
    }
    32
}

/// # Safety
/// The CPU has the dot product extension.
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot(iterations: u64) -> u64 {
    // SAFETY: dotprod instructions, which the caller vouches for, on registers that the block declares; no memory.
    unsafe {
        repeat!(iterations, vdupq_n_s8(3), "sdot v\\r\\().4s, v16.16b, v17.16b");
    }
    16
}

/// Products in 16 bits, added in pairs to 32: what a core without dot products has.
///
/// # Safety
/// The CPU has NEON.
#[target_feature(enable = "neon")]
unsafe fn smull(iterations: u64) -> u64 {
    // SAFETY: NEON instructions, which the caller vouches for, on registers that the block declares; no memory.
    unsafe {
        repeat!(iterations, vdupq_n_s8(3), "smull v18.8h, v16.8b, v17.8b", "sadalp v\\r\\().4s, v18.8h");
    }
    8
}
