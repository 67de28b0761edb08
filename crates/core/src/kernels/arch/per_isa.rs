//! Functions that are compiled once per instruction set.

/// Defines a function that takes an [`Isa`](super::Isa) first and runs `body`, an `#[inline(always)]` function, compiled for that
/// instruction set.
/// `name(..)` passes the other arguments to `body`, `name[isa](..)` the instruction set too.
macro_rules! per_isa {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident [isa] ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:path;) => {
        per_isa! { @ $(#[$meta])* $visibility fn $name (isa; $($arg: $type),*) $(-> $result)? = $body; (isa, $($arg),*) }
    };
    ($(#[$meta:meta])* $visibility:vis fn $name:ident ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:path;) => {
        per_isa! { @ $(#[$meta])* $visibility fn $name (isa; $($arg: $type),*) $(-> $result)? = $body; ($($arg),*) }
    };
    (@ $(#[$meta:meta])* $visibility:vis fn $name:ident ($isa:ident; $($arg:ident: $type:ty),*) $(-> $result:ty)? = $body:path; $call:tt) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        // inlined into a loop, a body would prepare its constants in every vectorization_barrier, needed or not
        #[inline(never)]
        $visibility fn $name($isa: $crate::kernels::arch::Isa, $($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments, unused_variables)]
            #[target_feature(enable = "avx2,fma")]
            fn with_avx2($isa: $crate::kernels::arch::Isa, $($arg: $type),*) $(-> $result)? {
                $body $call
            }
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments, unused_variables)]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            fn with_avx512($isa: $crate::kernels::arch::Isa, $($arg: $type),*) $(-> $result)? {
                $body $call
            }
            #[allow(unsafe_code)]
            match $isa.level() {
                // SAFETY: an `Avx2` token exists only where the CPU has AVX2 and FMA.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::arch::Level::Avx2(_) => unsafe { with_avx2($isa, $($arg),*) },
                // SAFETY: an `Avx512Vnni` token exists only where the CPU has AVX2, FMA and AVX-512 F, BW, DQ, VL and VNNI.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::arch::Level::Avx512(_) => unsafe { with_avx512($isa, $($arg),*) },
                // NEON is part of every aarch64 target
                _ => $body $call,
            }
        }
    };
}
pub(crate) use per_isa;
