//! Instruction sets, and the code that depends on them.
//!
//! A value of [`Isa`] exists only for an instruction set that the running CPU has, since it carries that set's token. Two kinds of code
//! depend on it:
//!
//! - the *tiles* of the matrix products, in intrinsics or assembly, one file per architecture: a few rows of activations times one
//!   panel of weights;
//! - everything else (`per_isa!`): one body in plain Rust, compiled once per instruction set and vectorized by the compiler.
//!
//! All of them compute the same bits: int8 products are exact, and float kernels fix the order of every sum, whatever the width
//! of a register.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod amx_permission;
mod arithmetic;
mod buffer;
mod expand;
mod finish;
mod fixed;
#[cfg(target_arch = "aarch64")]
mod fixed_aarch64;
mod functions;
mod half;
mod isa;
mod lanes;
mod mark;
mod multiply;
#[cfg(target_arch = "aarch64")]
pub(super) mod peak_aarch64;
#[cfg(target_arch = "x86_64")]
pub(super) mod peak_x86_64;
mod per_isa;
mod prefetch;
mod simd;
mod split;
#[cfg(target_arch = "x86_64")]
mod split_x86_64;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod starts;
mod strided;
mod tile;
mod token;
mod transpose;
mod vectorize;
mod weights;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use arithmetic::Arithmetic;
pub use buffer::{Aligned, Element};
pub use finish::{FloatTile, IntegerTile, Row};
pub use fixed::fixed_point;
pub use functions::{EXP, EXP_ROUGH, exp_by, gelu_rough};
pub use half::{HalfFormat, multiply as half_multiply};
#[cfg(target_arch = "x86_64")]
pub(crate) use isa::Level;
pub use isa::{ISAS, Isa, IsaError};
pub use mark::{mark, vectorization_barrier};
pub use multiply::Products;
#[cfg(target_arch = "aarch64")]
pub(super) use peak_aarch64 as peak;
#[cfg(target_arch = "x86_64")]
pub(super) use peak_x86_64 as peak;
pub(crate) use per_isa::per_isa;
pub use prefetch::prefetch;
pub use strided::strided_mut;
pub use tile::{
    ActivationForm, DotTile, F16_RUN, FIXED_COLUMNS, FIXED_ROWS, FixedBiases, FixedTile, FmaTile, HalfSums, HalfTile, K_STEP, LINEAR_TILE,
    LinearTile, Lines, SPLIT_LINES, SPLIT_STEP, Side, TILE_MAX, TileOf, split_len,
};
pub use transpose::Matrix;
pub use weights::{ScoreTile, WEIGHT_COLUMNS};

/// CPU features that matter to kernels, found at run time: for `doctor`.
pub fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "aarch64")]
    {
        let all = [
            ("neon", std::arch::is_aarch64_feature_detected!("neon")),
            ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
            ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
            ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ];
        found.extend(all.iter().filter(|(_, present)| *present).map(|(name, _)| *name));
    }
    #[cfg(target_arch = "x86_64")]
    {
        let all = [
            ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
            ("avxvnni", std::arch::is_x86_feature_detected!("avxvnni")),
            ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
            ("amx", amx_permission::permitted()),
        ];
        found.extend(all.iter().filter(|(_, present)| *present).map(|(name, _)| *name));
    }
    found
}
