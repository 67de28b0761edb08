//! Loops that only multiply and accumulate in registers. With the caller's clock they give the peak throughput to compare kernels with.

use super::arch::Isa;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
use super::arch::peak;

/// Accumulators of the portable loops.
const LANES: usize = 32;

/// Runs `iterations` rounds of the widest f32 multiply-accumulate of `isa`; returns the number of multiply-accumulates.
pub fn f32_macs(isa: Isa, iterations: u64) -> u64 {
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    if let Some(macs) = peak::f32_macs(isa.kind(), iterations) {
        return macs;
    }
    scalar_f32(iterations)
}

/// As [`f32_macs`], for products of 8-bit integers that are summed without loss in 32 bits.
pub fn int8_macs(isa: Isa, iterations: u64) -> u64 {
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    if let Some(macs) = peak::int8_macs(isa.kind(), iterations) {
        return macs;
    }
    scalar_int8(iterations)
}

/// The portable loop, compiled for the target's baseline.
fn scalar_f32(iterations: u64) -> u64 {
    let (factors, mut sums) = (std::hint::black_box([0.5_f32; LANES]), [0.0_f32; LANES]);
    for _ in 0..iterations {
        let factor = std::hint::black_box(0.5_f32);
        for (sum, value) in sums.iter_mut().zip(&factors) {
            *sum += factor * value;
        }
    }
    std::hint::black_box(sums);
    iterations * LANES as u64
}

fn scalar_int8(iterations: u64) -> u64 {
    let (factors, mut sums) = (std::hint::black_box([3_i8; LANES]), [0_i32; LANES]);
    for _ in 0..iterations {
        let factor = i32::from(std::hint::black_box(5_i8));
        for (sum, &value) in sums.iter_mut().zip(&factors) {
            *sum = sum.wrapping_add(factor * i32::from(value));
        }
    }
    std::hint::black_box(sums);
    iterations * LANES as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::suite;

    #[test]
    fn every_instruction_set_of_this_machine_counts_what_it_does() {
        suite::each_isa(|isa| {
            for count in [f32_macs, int8_macs] {
                assert_eq!(count(isa, 0), 0);
                assert_eq!(count(isa, 10), 10 * count(isa, 1));
                assert!(count(isa, 1) >= 8, "{}", isa.name());
            }
        });
    }
}
