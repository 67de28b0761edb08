//! The products of tiles: one implementation per instruction set, behind checks of the lengths.

#[cfg(target_arch = "aarch64")]
use super::aarch64;
use super::isa::{Isa, Kind};
use super::tile::{K_STEP, LINEAR_TILE, LinearTile, TILE_MAX, TileOf};
#[cfg(target_arch = "x86_64")]
use super::{amx, x86_64};

/// Products of int8 and half-precision tiles on this thread. Where matrix registers compute them, their shapes are set as long as a value
/// lives, since setting them takes longer than a product: one value for all tiles of a loop.
#[derive(Debug)]
pub struct Products {
    isa: Isa,
    #[cfg(target_arch = "x86_64")]
    _registers: Option<amx::Registers>,
}

impl Isa {
    /// Makes this thread ready for products of tiles.
    #[inline(always)]
    pub fn products(self) -> Products {
        Products {
            isa: self,
            #[cfg(target_arch = "x86_64")]
            _registers: if let Kind::Amx(token) = self.kind() { Some(amx::Registers::set(token)) } else { None },
        }
    }
}

impl Products {
    /// That of the tiles.
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// `acc[r][c] = sum_k a[r][k] * panel[k][c]` over `k` values (a multiple of the tile's `k_step`), exactly.
    ///
    /// `a` holds `mr` rows of the tile's [`ActivationForm`](super::ActivationForm), `stride` bytes apart or interleaved. A panel holds no -128: two products of i8 then fit 16 bits.
    #[inline(always)]
    pub fn dot(&self, a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
        let tile = self.isa.dot_tile();
        assert!(k.is_multiple_of(tile.k_step) && stride >= k * tile.form.bytes() && panel.len() >= k * tile.nr);
        assert!(a.len() >= (tile.mr - 1) * stride + k * tile.form.bytes());
        match self.isa.kind() {
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
            // SAFETY: an `Amx` token exists only where the CPU and the kernel permit AMX, and `self` has set the registers; the assertions above
            // hold for the lengths.
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

    /// [`Products::half`] into rows of `to` that are `to_stride` values apart, the whole tile.
    #[inline(always)]
    pub fn half_rows(&self, a: &[u16], stride: usize, panel: &[u16], k: usize, to: &mut [f32], to_stride: usize) {
        let tile = self.isa.half_tile().expect("an instruction set with half-precision products");
        assert!(to_stride >= tile.nr && to.len() >= (tile.mr - 1) * to_stride + tile.nr);
        #[cfg(target_arch = "x86_64")]
        if let Kind::Amx(_) = self.isa.kind() {
            assert!(k.is_multiple_of(tile.k_step) && stride >= k && panel.len() >= k * tile.nr && a.len() >= (tile.mr - 1) * stride + k);
            // SAFETY: an `Amx` token exists only where the CPU and the kernel permit AMX, and `self` has set the registers; the assertions
            // above hold for the lengths.
            return unsafe { amx::half(a, stride, panel, k, to.as_mut_ptr(), to_stride) };
        }
        let mut acc = TileOf([0.0; TILE_MAX]);
        self.half(a, stride, panel, k, &mut acc);
        for (row, acc) in acc.0.chunks_exact(tile.nr).take(tile.mr).enumerate() {
            to[row * to_stride..][..tile.nr].copy_from_slice(acc);
        }
    }

    /// `acc[r][c] = sum_k a[r][k] * panel[k][c]` over `k` values, a multiple of the tile's `k_step`, in half precision.
    ///
    /// `a` holds `mr` rows, `stride` values apart. Panics on an instruction set without [`Isa::half_tile`]: a bug of the caller.
    #[inline(always)]
    pub fn half(&self, a: &[u16], stride: usize, panel: &[u16], k: usize, acc: &mut TileOf<f32>) {
        let tile = self.isa.half_tile().expect("an instruction set with half-precision products");
        assert!(k.is_multiple_of(tile.k_step) && stride >= k && panel.len() >= k * tile.nr && a.len() >= (tile.mr - 1) * stride + k);
        match self.isa.kind() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx512Bf16` token exists only where the CPU has AVX-512 F and BF16; the assertions above hold for the lengths.
            Kind::Avx512Bf16(_) => unsafe { x86_64::half_avx512bf16(a, stride, panel, k, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Amx` token exists only where the CPU and the kernel permit AMX, and `self` has set the registers; the assertions above
            // hold for the lengths.
            Kind::Amx(_) => unsafe { amx::half(a, stride, panel, k, acc.0.as_mut_ptr(), tile.nr) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: both tokens exist only where the CPU has half-precision arithmetic; the assertions above hold for the lengths.
            Kind::Dotprod(_) | Kind::I8mm(_) => unsafe { aarch64::half_fp16(a, stride, panel, k, acc) },
            _ => unreachable!("an instruction set without a half-precision tile"),
        }
    }
}

impl Isa {
    /// Whether there is [`Isa::linear_tile`].
    #[inline(always)]
    pub fn has_linear_tile(self) -> bool {
        #[cfg(target_arch = "aarch64")]
        return matches!(self.kind(), Kind::Dotprod(_));
        #[cfg(not(target_arch = "aarch64"))]
        false
    }

    /// A tile of a linear layer from its products to its outputs, without a way through memory:
    /// `((a panel) - zeros sums) scales column_scales + bias + residual`, the bits of [`Products::dot`] and the int8 epilogue.
    ///
    /// `a` and `panel` are those of [`Products::dot`], all sums are below 2^22. `residual` is empty or laid out as `to`. Panics on an instruction
    /// set without [`Isa::has_linear_tile`]: a bug of the caller.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "aarch64"), allow(unused_variables))]
    pub fn linear_tile(self, a: &[u8], panel: &[i8], k: usize, tile: &LinearTile, residual: &[f32], to: &mut [f32]) {
        let len = (LINEAR_TILE - 1) * tile.stride + LINEAR_TILE;
        assert!(k.is_multiple_of(K_STEP) && a.len() >= k * LINEAR_TILE && panel.len() >= k * LINEAR_TILE);
        assert!(tile.stride >= LINEAR_TILE && to.len() >= len && (residual.is_empty() || residual.len() >= len));
        match self.kind() {
            #[cfg(target_arch = "aarch64")]
            // SAFETY: a `Dotprod` token exists only where the CPU has the dot product; the assertions above hold for the lengths.
            Kind::Dotprod(_) => unsafe { aarch64::linear_dotprod(a, panel, k, tile, residual, to) },
            _ => unreachable!("an instruction set without a tile of linear layers"),
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
}

/// The definition of [`Products::dot`]: tile 4x4, kr = 1.
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

#[cfg(test)]
mod tests {
    use super::super::half::{HalfFormat, multiply};
    use super::super::tile::ActivationForm;
    use super::*;
    use crate::kernels::suite::{self, Bits};
    use crate::kernels::testing::numbers;

    /// Steps along k, so that loops that are unrolled two- and fourfold run into their ends.
    const STEPS: [usize; 8] = [0, 1, 2, 3, 4, 5, 7, 25];

    /// Memory that starts `offset` values behind a cache line, and what lies behind those.
    fn at<T: Copy + Default>(values: &[T], offset: usize) -> Vec<T> {
        [&vec![T::default(); offset][..], values].concat()
    }

    fn check<T: Bits + Copy>(isa: Isa, case: &str, acc: &TileOf<T>, len: usize, expected: impl Fn(usize) -> T, untouched: T) {
        for (i, value) in acc.0.iter().enumerate() {
            let expected = if i < len { expected(i) } else { untouched };
            assert!(value.same(&expected), "{case} on {}, value {i}: {value:?} instead of {expected:?}", isa.name());
        }
    }

    /// The panel `[k / kr][nr][kr]` of a matrix `[k][nr]`.
    fn packed<T: Copy>(matrix: &[T], k: usize, nr: usize, kr: usize) -> Vec<T> {
        let position = |at: usize| (at / (nr * kr) * kr + at % kr, at / kr % nr);
        (0..k * nr).map(position).map(|(i, c)| matrix[i * nr + c]).collect()
    }

    #[test]
    fn int8_tiles_conform() {
        suite::each_isa(|isa| {
            let tile = isa.dot_tile();
            for (k, extreme) in STEPS.into_iter().flat_map(|steps| [(steps * tile.k_step, false), (steps * tile.k_step, true)]) {
                // the largest products there are, or ordinary ones; no weight is -128
                let integer = |value: f32| match extreme {
                    true => {
                        if value > 0.0 {
                            127
                        } else {
                            -127
                        }
                    }
                    false => (value * 127.0) as i8,
                };
                let activations: Vec<i8> =
                    numbers(tile.mr * k, 1).into_iter().map(|v| if extreme && v < 0.0 { -128 } else { integer(v) }).collect();
                let weights: Vec<i8> = numbers(k * tile.nr, 2).into_iter().map(integer).collect();
                let value = |r: usize, i: usize| i32::from(activations[r * k + i]);
                let sums: Vec<i32> = (0..tile.nr).map(|c| (0..k).map(|i| i32::from(weights[i * tile.nr + c])).sum()).collect();
                let exact = |at: usize| -> i32 {
                    let (r, c) = (at / tile.nr, at % tile.nr);
                    let products = (0..k).map(|i| value(r, i) * i32::from(weights[i * tile.nr + c]));
                    // the offset of the activations stays in: the epilogue takes it out
                    products.sum::<i32>() + tile.form.offset() * sums[c]
                };
                for (offset, gap) in [(0, 0), (1, 3), (5, 64)] {
                    let stride = k * tile.form.bytes() + gap * tile.form.bytes();
                    let mut bytes = vec![0x33; tile.mr * stride.max(1)];
                    for (r, i) in (0..tile.mr).flat_map(|r| (0..k).map(move |i| (r, i))) {
                        match tile.form {
                            _ if tile.interleaved => bytes[(i / K_STEP * tile.mr + r) * K_STEP + i % K_STEP] = value(r, i) as u8,
                            ActivationForm::Signed => bytes[r * stride + i] = value(r, i) as u8,
                            ActivationForm::Offset => bytes[r * stride + i] = (value(r, i) + 128) as u8,
                            ActivationForm::Wide => bytes[r * stride + 2 * i..][..2].copy_from_slice(&(value(r, i) as i16).to_ne_bytes()),
                        }
                    }
                    let mut acc = TileOf([77; TILE_MAX]);
                    let (bytes, panel) = (at(&bytes, offset), at(&packed(&weights, k, tile.nr, tile.kr), offset));
                    isa.products().dot(&bytes[offset..], stride, &panel[offset..], k, &mut acc);
                    check(isa, &format!("k {k}, {gap} apart"), &acc, tile.mr * tile.nr, exact, 77);
                }
            }
        });
    }

    #[test]
    fn f32_tiles_conform() {
        suite::each_isa(|isa| {
            let tile = isa.fma_tile();
            for k in (0..20).chain(STEPS.map(|steps| 16 * steps)) {
                let mut activations = numbers(tile.mr * k, 1);
                let matrix = numbers(k * tile.nr, 2);
                if k > 9 {
                    // one row has a NaN, one overflows, one is subnormal
                    activations[3] = f32::NAN;
                    activations[k..k + 9].fill(f32::MAX);
                    activations[2 * k..3 * k].iter_mut().for_each(|value| *value *= 1e-38);
                }
                let expected = |at: usize| {
                    let (r, c) = (at / tile.nr, at % tile.nr);
                    (0..k).fold(0.0, |sum, i| activations[r * k + i].mul_add(matrix[i * tile.nr + c], sum))
                };
                for (offset, gap) in [(0, 0), (1, 3), (5, 16)] {
                    let stride = k + gap;
                    let spread: Vec<f32> = (0..tile.mr * stride)
                        .map(|at| if at % stride < k { activations[at / stride * k + at % stride] } else { 9.0 })
                        .collect();
                    let mut acc = TileOf([77.0; TILE_MAX]);
                    let (rows, panel) = (at(&spread, offset), at(&matrix, offset));
                    isa.fma(&rows[offset..], stride, &panel[offset..], k, &mut acc);
                    check(isa, &format!("k {k}, {gap} apart"), &acc, tile.mr * tile.nr, expected, 77.0);
                }
            }
        });
    }

    #[test]
    fn half_precision_tiles_conform() {
        let half = |value: f32| HalfFormat::NATIVE.round(value);
        suite::each_isa(|isa| {
            let Some(tile) = isa.half_tile() else { return };
            for k in (0..20).chain([31, 50, 64, 65, 100, 203]).map(|steps| steps * tile.k_step) {
                let mut rows: Vec<Vec<f32>> = (0..tile.mr).map(|r| numbers(k, r as u32)).collect();
                if k > 12 {
                    rows[0][3] = f32::NAN;
                    rows[1][4] = f32::INFINITY;
                    rows[2].iter_mut().for_each(|value| *value *= 1e-7); // subnormal in f16
                    rows[3].iter_mut().for_each(|value| *value *= 3e4); // sums that overflow in f16
                    rows[4].iter_mut().for_each(|value| *value *= 1e-38); // subnormal in bfloat16, zero in f16
                    rows[5].fill(-0.0);
                }
                let matrix: Vec<u16> = numbers(k * tile.nr, 99).into_iter().map(half).collect();
                for (offset, gap) in [(0, 0), (1, 2), (3, 32)] {
                    let stride = k + gap;
                    let spread = rows.iter().flat_map(|row| row.iter().copied().chain(vec![9.0; gap]).map(half));
                    let rows: Vec<u16> = spread.collect();
                    let panel = packed(&matrix, k, tile.nr, tile.kr);
                    let mut expected = TileOf([77.0; TILE_MAX]);
                    multiply(tile, &rows, stride, &panel, k, &mut expected);
                    let mut acc = TileOf([77.0; TILE_MAX]);
                    let (rows, panel) = (at(&rows, offset), at(&panel, offset));
                    isa.products().half(&rows[offset..], stride, &panel[offset..], k, &mut acc);
                    check(isa, &format!("k {k}, {gap} apart"), &acc, tile.mr * tile.nr, |at| expected.0[at], 77.0);
                }
            }
        });
    }

    /// The target's conversion, which may be instructions, against the definition.
    #[test]
    fn conversions_to_half_conform() {
        let wild = |seed: u32| numbers(999, seed).into_iter().zip(numbers(999, seed + 1)).map(|(a, b)| a * (b * 80.0).exp2()).collect();
        let rows = [suite::tails(70_000.0), suite::tails(1e-5), suite::extremes(), vec![wild(1), wild(5)]].concat();
        let kernel = |_: Isa, row: &[f32], to: &mut [u16]| super::super::half::to_half(row, to);
        suite::rows(
            &rows,
            7,
            |n| n,
            kernel,
            |row, to, ()| {
                for (value, half) in row.iter().zip(to) {
                    match value.is_nan() {
                        true => assert!(HalfFormat::NATIVE.widen(*half).is_nan()),
                        false => assert_eq!(*half, HalfFormat::NATIVE.round(*value), "{value:e}"),
                    }
                }
            },
        );
    }
}
