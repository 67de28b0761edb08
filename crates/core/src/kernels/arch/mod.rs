//! What this CPU can do, and the code that depends on it.
//!
//! [`Isa`] is a token: a value exists only for an instruction set that the running CPU has, so a kernel that gets one may use it.
//! Two kinds of code hang on it:
//!
//! - the *tiles* of the matrix products, in intrinsics or assembly, one file per architecture: a few rows of activations times one
//!   panel of weights;
//! - everything else ([`per_isa!`]): one body in plain Rust, compiled once per instruction set and vectorized by the compiler.
//!
//! All of them compute the same bits: int8 products are exact, and float kernels fix the order of every sum, whatever the width
//! of a register.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod amx;
mod buffer;
mod lanes;
mod mark;
#[cfg(target_arch = "aarch64")]
pub(super) mod peak_aarch64;
#[cfg(target_arch = "x86_64")]
pub(super) mod peak_x86_64;
mod strided;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub use aarch64::to_half;
pub use buffer::{Aligned, Element};
pub use lanes::Arithmetic;
pub use mark::{mark, vectorization_barrier};
#[cfg(target_arch = "aarch64")]
pub(super) use peak_aarch64 as peak;
#[cfg(target_arch = "x86_64")]
pub(super) use peak_x86_64 as peak;
pub use strided::strided_mut;

/// Instruction sets that kernels are written for, the best first.
pub const ISAS: [&str; 9] = ["amx", "avx512bf16", "avx512vnni", "avxvnni", "avx2", "i8mm", "dotprod", "neon", "scalar"];

/// Why there are no kernels of the instruction set that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    #[error("'{name}' is no instruction set; there are auto, {}", ISAS.join(", "))]
    Unknown { name: String },
    #[error("this CPU has no {name}; it has {available}")]
    Missing { name: String, available: String },
}

/// An instruction set of the running CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(Kind);

/// The instruction sets that have kernels of their own, the plainest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// What every CPU of the target has; the truth that the others are tested against.
    Scalar,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2 and the VEX form of the 8-bit dot product.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// [`Kind::Avx512Vnni`] and products of bfloat16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// [`Kind::Avx512Bf16`] and matrix registers: Xeons since Sapphire Rapids.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// Armv8-A: Cortex-A53, A57, A72.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// `sdot` and half-precision arithmetic: Cortex-A55, A76, A78AE.
    #[cfg(target_arch = "aarch64")]
    Dotprod,
    /// `smmla`: Neoverse V1, Cortex-X2, A710 and newer.
    #[cfg(target_arch = "aarch64")]
    I8mm,
}

/// The shape of an int8 tile: `mr` rows of activations times a panel of `nr` columns, `kr` consecutive values at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DotTile {
    pub mr: usize,
    pub nr: usize,
    /// A panel is `[k / kr][nr][kr]`.
    pub kr: usize,
    pub form: ActivationForm,
    /// Activations lie as `[rows / mr][k / K_STEP][mr][K_STEP]`, so that a tile reads them one after the other; else row by row.
    pub interleaved: bool,
}

/// How a tile wants its quantized activations.
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

    /// What is added to an i8.
    pub fn offset(self) -> i32 {
        if self == ActivationForm::Offset { 128 } else { 0 }
    }
}

/// The shape of an f32 tile: `mr` rows times a panel `[k][nr]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FmaTile {
    pub mr: usize,
    pub nr: usize,
}

/// The shape of a half-precision tile: `mr` rows times a panel `[k / kr][nr][kr]`, both in the instruction set's own 16-bit format,
/// summed in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfTile {
    pub mr: usize,
    pub nr: usize,
    pub kr: usize,
}

/// Values of the largest tile of any instruction set.
pub const TILE_MAX: usize = 512;

/// The accumulators of one tile, row-major `[mr][nr]`.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub struct TileOf<T>(pub [T; TILE_MAX]);

/// Activations and panels are padded to a multiple of this many values along k, so that no tile needs a tail.
pub const K_STEP: usize = 16;

impl Isa {
    /// What every machine has.
    pub const SCALAR: Isa = Isa(Kind::Scalar);

    /// The best that this CPU has.
    pub fn detect() -> Isa {
        *Isa::available().last().expect("there is always the scalar one")
    }

    /// All that this CPU has, the best last.
    pub fn available() -> Vec<Isa> {
        let mut found = vec![Isa::SCALAR];
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected as has;
            let dotprod = has!("dotprod") && has!("fp16");
            let all = [(has!("neon"), Kind::Neon), (dotprod, Kind::Dotprod), (dotprod && has!("i8mm"), Kind::I8mm)];
            found.extend(all.into_iter().filter(|(present, _)| *present).map(|(_, kind)| Isa(kind)));
        }
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma");
            let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512vnni");
            let bf16 = avx2 && avx512 && has!("avx512bf16");
            let all = [
                (avx2, Kind::Avx2),
                (avx2 && has!("avxvnni"), Kind::AvxVnni),
                (avx2 && avx512, Kind::Avx512Vnni),
                (bf16, Kind::Avx512Bf16),
                (bf16 && amx::permitted(), Kind::Amx),
            ];
            found.extend(all.into_iter().filter(|(present, _)| *present).map(|(_, kind)| Isa(kind)));
        }
        found
    }

    /// The instruction set of this name; `None` and `auto` give the best.
    ///
    /// # Errors
    /// When there is none of that name, or this CPU has it not.
    pub fn named(name: Option<&str>) -> Result<Isa, IsaError> {
        let Some(name) = name.filter(|name| *name != "auto") else { return Ok(Isa::detect()) };
        if !ISAS.contains(&name) {
            return Err(IsaError::Unknown { name: name.to_owned() });
        }
        let available = Isa::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<&str> = available.iter().rev().map(|isa| isa.name()).collect();
            IsaError::Missing { name: name.to_owned(), available: names.join(", ") }
        })
    }

    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16 => "avx512bf16",
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => "amx",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::Dotprod => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm => "i8mm",
        }
    }

    /// For [`per_isa!`].
    #[doc(hidden)]
    pub(crate) fn kind(self) -> Kind {
        self.0
    }

    /// The int8 tile.
    pub fn dot_tile(self) -> DotTile {
        match self.0 {
            Kind::Scalar => DotTile { mr: 4, nr: 4, kr: 1, form: ActivationForm::Signed, interleaved: false },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => DotTile { mr: 6, nr: 16, kr: 2, form: ActivationForm::Wide, interleaved: false },
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => DotTile { mr: 6, nr: 16, kr: 4, form: ActivationForm::Offset, interleaved: false },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni | Kind::Avx512Bf16 => DotTile { mr: 12, nr: 32, kr: 4, form: ActivationForm::Offset, interleaved: false },
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => DotTile { mr: 16, nr: 32, kr: 4, form: ActivationForm::Offset, interleaved: false },
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => DotTile { mr: 8, nr: 8, kr: 16, form: ActivationForm::Signed, interleaved: true },
            #[cfg(target_arch = "aarch64")]
            Kind::Dotprod => DotTile { mr: 8, nr: 8, kr: 4, form: ActivationForm::Signed, interleaved: true },
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm => DotTile { mr: 8, nr: 8, kr: 8, form: ActivationForm::Signed, interleaved: true },
        }
    }

    /// Rows that are whole tiles of every kind: what a block of rows should be a multiple of.
    pub fn tile_rows(self) -> usize {
        self.dot_tile().mr.max(self.fma_tile().mr)
    }

    /// The f32 tile.
    pub fn fma_tile(self) -> FmaTile {
        match self.0 {
            Kind::Scalar => FmaTile { mr: 4, nr: 4 },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::AvxVnni => FmaTile { mr: 6, nr: 16 },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni | Kind::Avx512Bf16 => FmaTile { mr: 12, nr: 32 },
            // a divisor of the other tiles' rows
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => FmaTile { mr: 8, nr: 32 },
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::Dotprod | Kind::I8mm => FmaTile { mr: 8, nr: 8 },
        }
    }

    /// `acc[r][c] = sum_k a[r][k] * panel[k][c]` over `k` values (a multiple of [`K_STEP`]), exactly.
    ///
    /// `a` holds `mr` rows of [`ActivationForm`], `stride` bytes apart or interleaved. A panel holds no -128: two products of i8 then fit 16 bits.
    #[inline(always)]
    pub fn dot(self, a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
        let tile = self.dot_tile();
        assert!(k.is_multiple_of(K_STEP) && stride >= k * tile.form.bytes() && panel.len() >= k * tile.nr);
        assert!(a.len() >= (tile.mr - 1) * stride + k * tile.form.bytes());
        match self.0 {
            Kind::Scalar => dot_scalar(a, stride, panel, k, acc),
            // SAFETY: the token proves the features, the assertions above the lengths.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { x86_64::dot_avx2(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::AvxVnni => unsafe { x86_64::dot_avxvnni(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Avx512Vnni | Kind::Avx512Bf16 => unsafe { x86_64::dot_avx512vnni(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Amx => unsafe { amx::dot(a, stride, panel, k, acc) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Kind::Neon => unsafe { aarch64::dot_neon(a, panel, k, acc) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Kind::Dotprod => unsafe { aarch64::dot_dotprod(a, panel, k, acc) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Kind::I8mm => unsafe { aarch64::dot_i8mm(a, panel, k, acc) },
        }
    }

    /// `acc[r][c] = sum_k a[r][k] * panel[k][c]`, each sum one fused multiply-add after the other in the order of k.
    ///
    /// `a` holds `mr` rows, `stride` values apart.
    #[inline(always)]
    pub fn fma(self, a: &[f32], stride: usize, panel: &[f32], k: usize, acc: &mut TileOf<f32>) {
        let tile = self.fma_tile();
        assert!(stride >= k && panel.len() >= k * tile.nr && a.len() >= (tile.mr - 1) * stride + k);
        match self.0 {
            Kind::Scalar => fma_scalar(a, stride, panel, k, acc),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the token proves the features, the assertion above the lengths.
            Kind::Avx2 | Kind::AvxVnni => unsafe { x86_64::fma_avx2(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Avx512Vnni | Kind::Avx512Bf16 => unsafe { x86_64::fma_avx512::<12>(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Amx => unsafe { x86_64::fma_avx512::<8>(a, stride, panel, k, acc) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Kind::Neon | Kind::Dotprod | Kind::I8mm => unsafe { aarch64::fma_neon(a, stride, panel, k, acc) },
        }
    }
}

impl Isa {
    /// The half-precision tile of instruction sets whose 16-bit products are faster than f32.
    pub fn half_tile(self) -> Option<HalfTile> {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16 => Some(HalfTile { mr: 12, nr: 32, kr: 2 }),
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => Some(HalfTile { mr: 16, nr: 32, kr: 2 }),
            #[cfg(target_arch = "aarch64")]
            Kind::Dotprod | Kind::I8mm => Some(HalfTile { mr: 8, nr: 16, kr: 1 }),
            _ => None,
        }
    }

    /// `acc[r][c] = sum_k a[r][k] * panel[k][c]` over `k` values, a multiple of `kr`, in half precision.
    ///
    /// `a` holds `mr` rows, `stride` values apart. Panics on an instruction set without [`Isa::half_tile`]: a bug of the caller.
    #[inline(always)]
    pub fn half(self, a: &[u16], stride: usize, panel: &[u16], k: usize, acc: &mut TileOf<f32>) {
        let tile = self.half_tile().expect("an instruction set with half-precision products");
        assert!(k.is_multiple_of(tile.kr) && stride >= k && panel.len() >= k * tile.nr && a.len() >= (tile.mr - 1) * stride + k);
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the token proves the features, the assertion above the lengths.
            Kind::Avx512Bf16 => unsafe { x86_64::half_avx512bf16(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Amx => unsafe { amx::half(a, stride, panel, k, acc) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Kind::Dotprod | Kind::I8mm => unsafe { aarch64::half_fp16(a, stride, panel, k, acc) },
            _ => unreachable!("checked above"),
        }
    }
}

/// f32 to the format of half-precision tiles, here bfloat16: rounded to nearest, ties to even; NaN stays NaN.
#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
pub fn to_half(from: &[f32], to: &mut [u16]) {
    for (to, value) in to.iter_mut().zip(from) {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        *to = if value.is_nan() { 0x7fc0 } else { rounded as u16 };
    }
}

/// The starts of the rows of a tile, in registers of their own: the compiler would add the stride again and again in every step.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
#[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read through them there
#[inline(always)]
fn starts<T, const ROWS: usize>(first: *const T, stride: usize) -> [*const T; ROWS] {
    std::array::from_fn(|r| {
        let mut start = first.wrapping_add(r * stride);
        // SAFETY: no instruction at all; the compiler just no longer knows where the value is from.
        unsafe { std::arch::asm!("/* {start} */", start = inout(reg) start, options(pure, nomem, nostack, preserves_flags)) };
        start
    })
}

/// The truth for [`Isa::dot`]: tile 4x4, kr = 1.
fn dot_scalar(a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    for r in 0..4 {
        for c in 0..4 {
            let products = (0..k).map(|i| i32::from(a[r * stride + i] as i8) * i32::from(panel[i * 4 + c]));
            acc.0[r * 4 + c] = products.sum();
        }
    }
}

/// The truth for [`Isa::fma`]: tile 4x4.
fn fma_scalar(a: &[f32], stride: usize, panel: &[f32], k: usize, acc: &mut TileOf<f32>) {
    for r in 0..4 {
        for c in 0..4 {
            acc.0[r * 4 + c] = (0..k).fold(0.0, |sum, i| a[r * stride + i].mul_add(panel[i * 4 + c], sum));
        }
    }
}

/// Defines a function that takes an [`Isa`] first and runs `body`, an `#[inline(always)]` function, compiled for that instruction set.
/// `name(..)` hands `body` the other arguments, `name[isa](..)` the token too.
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
            match $isa.kind() {
                // SAFETY: the token proves that the CPU has these features.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::arch::Kind::Avx2 | $crate::kernels::arch::Kind::AvxVnni => unsafe { with_avx2($isa, $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::arch::Kind::Avx512Vnni
                | $crate::kernels::arch::Kind::Avx512Bf16
                | $crate::kernels::arch::Kind::Amx => {
                    // SAFETY: as above.
                    unsafe { with_avx512($isa, $($arg),*) }
                }
                // NEON is part of every aarch64 target
                _ => $body $call,
            }
        }
    };
}
pub(crate) use per_isa;

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
            ("amx", amx::permitted()),
        ];
        found.extend(all.iter().filter(|(_, present)| *present).map(|(name, _)| *name));
    }
    found
}
