//! Tokens of instruction sets: values without size that exist only where the CPU has the features.
//!
//! After rten-simd. A function that takes a token needs no other proof that it may use the instructions. `detect` is the only
//! source of a token, apart from a stronger token that includes it.

/// Defines tokens, each with the question to the running CPU.
macro_rules! tokens {
    ($($(#[$meta:meta])* $name:ident = $present:expr;)*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(());

        impl $name {
            /// The token, where the running CPU has the features.
            pub fn detect() -> Option<$name> {
                ($present).then_some($name(()))
            }
        }
    )*};
}

/// Weaker tokens from stronger ones.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
macro_rules! includes {
    ($($strong:ident => $weak:ident;)*) => {$(
        impl From<$strong> for $weak {
            #[inline(always)]
            fn from(_: $strong) -> $weak {
                $weak(())
            }
        }
    )*};
}

/// What every CPU of the target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scalar;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::is_x86_feature_detected as has;

    use super::super::amx_permission::permitted;

    tokens! {
        /// AVX2 and FMA.
        Avx2 = has!("avx2") && has!("fma");
        /// [`Avx2`] and the VEX form of the 8-bit dot product.
        AvxVnni = Avx2::detect().is_some() && has!("avxvnni");
        /// [`Avx2`] and AVX-512 F, BW, DQ, VL and VNNI.
        Avx512Vnni = Avx2::detect().is_some()
            && has!("avx512f")
            && has!("avx512bw")
            && has!("avx512dq")
            && has!("avx512vl")
            && has!("avx512vnni");
        /// [`Avx512Vnni`] and products of bfloat16.
        Avx512Bf16 = Avx512Vnni::detect().is_some() && has!("avx512bf16");
        /// [`Avx512Bf16`] and matrix registers that the kernel lets this process use: Xeons since Sapphire Rapids.
        Amx = Avx512Bf16::detect().is_some() && permitted();
    }
    includes! {
        AvxVnni => Avx2;
        Avx512Bf16 => Avx512Vnni;
        Amx => Avx512Vnni;
        Amx => Avx512Bf16;
    }
}
#[cfg(target_arch = "x86_64")]
pub use x86_64::{Amx, Avx2, Avx512Bf16, Avx512Vnni, AvxVnni};

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::is_aarch64_feature_detected as has;

    tokens! {
        /// Armv8-A: Cortex-A53, A57, A72.
        Neon = has!("neon");
        /// [`Neon`], `sdot` and half-precision arithmetic: Cortex-A55, A76, A78AE.
        Dotprod = Neon::detect().is_some() && has!("dotprod") && has!("fp16");
        /// [`Dotprod`] and `smmla`: Neoverse V1, Cortex-X2, A710 and newer.
        I8mm = Dotprod::detect().is_some() && has!("i8mm");
    }
    includes! {
        Dotprod => Neon;
        I8mm => Neon;
        I8mm => Dotprod;
    }
}
#[cfg(target_arch = "aarch64")]
pub use aarch64::{Dotprod, I8mm, Neon};
