//! The products of tiles: one implementation per instruction set, behind checks of the lengths.

#[cfg(target_arch = "aarch64")]
use super::aarch64;
use super::isa::{Isa, Kind};
use super::tile::{K_STEP, TileOf};
#[cfg(target_arch = "x86_64")]
use super::{amx, x86_64};

impl Isa {
    /// `acc[r][c] = sum_k a[r][k] * panel[k][c]` over `k` values (a multiple of [`K_STEP`]), exactly.
    ///
    /// `a` holds `mr` rows of [`ActivationForm`], `stride` bytes apart or interleaved. A panel holds no -128: two products of i8 then fit 16 bits.
    #[inline(always)]
    pub fn dot(self, a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
        let tile = self.dot_tile();
        assert!(k.is_multiple_of(K_STEP) && stride >= k * tile.form.bytes() && panel.len() >= k * tile.nr);
        assert!(a.len() >= (tile.mr - 1) * stride + k * tile.form.bytes());
        match self.kind() {
            Kind::Scalar => dot_scalar(a, stride, panel, k, acc),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx2` token exists only where the CPU has AVX2; the assertions above hold for the lengths.
            Kind::Avx2(_) => unsafe { x86_64::dot_avx2(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `AvxVnni` token exists only where the CPU has AVX2 and AVX-VNNI; the assertions above hold for the lengths.
            Kind::AvxVnni(_) => unsafe { x86_64::dot_avxvnni(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: both tokens exist only where the CPU has AVX-512 F, BW, VL and VNNI; the assertions above hold for the lengths.
            Kind::Avx512Vnni(_) | Kind::Avx512Bf16(_) => unsafe { x86_64::dot_avx512vnni(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Amx` token exists only where the CPU and the kernel permit AMX; the assertions above hold for the lengths.
            Kind::Amx(_) => unsafe { amx::dot(a, stride, panel, k, acc) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: NEON is part of every aarch64 target; the assertions above hold for the lengths.
            Kind::Neon(_) => unsafe { aarch64::dot_neon(a, panel, k, acc) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: a `Dotprod` token exists only where the CPU has the dot product; the assertions above hold for the lengths.
            Kind::Dotprod(_) => unsafe { aarch64::dot_dotprod(a, panel, k, acc) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: an `I8mm` token exists only where the CPU has the 8-bit matrix multiply; the assertions above hold for the lengths.
            Kind::I8mm(_) => unsafe { aarch64::dot_i8mm(a, panel, k, acc) },
        }
    }

    /// `acc[r][c] = sum_k a[r][k] * panel[k][c]`, each sum one fused multiply-add after the other in the order of k.
    ///
    /// `a` holds `mr` rows, `stride` values apart.
    #[inline(always)]
    pub fn fma(self, a: &[f32], stride: usize, panel: &[f32], k: usize, acc: &mut TileOf<f32>) {
        let tile = self.fma_tile();
        assert!(stride >= k && panel.len() >= k * tile.nr && a.len() >= (tile.mr - 1) * stride + k);
        match self.kind() {
            Kind::Scalar => fma_scalar(a, stride, panel, k, acc),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: both tokens exist only where the CPU has AVX2 and FMA; the assertions above hold for the lengths.
            Kind::Avx2(_) | Kind::AvxVnni(_) => unsafe { x86_64::fma_avx2(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: both tokens exist only where the CPU has AVX-512 F; the assertions above hold for the lengths.
            Kind::Avx512Vnni(_) | Kind::Avx512Bf16(_) => unsafe { x86_64::fma_avx512::<12>(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Amx` token exists only where the CPU has AVX-512 F; the assertions above hold for the lengths.
            Kind::Amx(_) => unsafe { x86_64::fma_avx512::<8>(a, stride, panel, k, acc) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: NEON is part of every aarch64 target; the assertions above hold for the lengths.
            Kind::Neon(_) | Kind::Dotprod(_) | Kind::I8mm(_) => unsafe { aarch64::fma_neon(a, stride, panel, k, acc) },
        }
    }

    /// `acc[r][c] = sum_k a[r][k] * panel[k][c]` over `k` values, a multiple of `kr`, in half precision.
    ///
    /// `a` holds `mr` rows, `stride` values apart. Panics on an instruction set without [`Isa::half_tile`]: a bug of the caller.
    #[inline(always)]
    pub fn half(self, a: &[u16], stride: usize, panel: &[u16], k: usize, acc: &mut TileOf<f32>) {
        let tile = self.half_tile().expect("an instruction set with half-precision products");
        assert!(k.is_multiple_of(tile.kr) && stride >= k && panel.len() >= k * tile.nr && a.len() >= (tile.mr - 1) * stride + k);
        match self.kind() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx512Bf16` token exists only where the CPU has AVX-512 F and BF16; the assertions above hold for the lengths.
            Kind::Avx512Bf16(_) => unsafe { x86_64::half_avx512bf16(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Amx` token exists only where the CPU and the kernel permit AMX; the assertions above hold for the lengths.
            Kind::Amx(_) => unsafe { amx::half(a, stride, panel, k, acc) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: both tokens exist only where the CPU has half-precision arithmetic; the assertions above hold for the lengths.
            Kind::Dotprod(_) | Kind::I8mm(_) => unsafe { aarch64::half_fp16(a, stride, panel, k, acc) },
            _ => unreachable!("an instruction set without a half-precision tile"),
        }
    }
}

/// The definition of [`Isa::dot`]: tile 4x4, kr = 1.
fn dot_scalar(a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    for r in 0..4 {
        for c in 0..4 {
            let products = (0..k).map(|i| i32::from(a[r * stride + i] as i8) * i32::from(panel[i * 4 + c]));
            acc.0[r * 4 + c] = products.sum();
        }
    }
}

/// The definition of [`Isa::fma`]: tile 4x4.
fn fma_scalar(a: &[f32], stride: usize, panel: &[f32], k: usize, acc: &mut TileOf<f32>) {
    for r in 0..4 {
        for c in 0..4 {
            acc.0[r * 4 + c] = (0..k).fold(0.0, |sum, i| a[r * stride + i].mul_add(panel[i * 4 + c], sum));
        }
    }
}
