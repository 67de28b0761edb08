//! Tiles of Intel's Advanced Matrix Extensions: registers of 16 rows of 64 bytes, and instructions that multiply two of them.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18. A panel `[k / 4][32][4]` of bytes or
//! `[k / 2][32][2]` of bfloat16 fills two registers side by side, so these tiles share the layout of
//! the AVX-512 ones. The shapes of the registers are state of the thread. Each product sets them and leaves nothing behind: other
//! code of the process may have shapes of its own, and a thread that keeps none is switched faster.

use std::arch::asm;

use super::tile::TileOf;
use super::token::Amx;

/// Bytes of a row of a register.
const ROW: usize = 64;
/// Bytes of a row of the accumulators, and of a step of a panel.
const PANEL_ROW: usize = 128;

/// What `ldtilecfg` reads: bytes a row and rows of each register.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// For rows of `bytes` bytes: accumulators 0 and 1, a step's left-hand side 2 and right-hand sides 3 and 4, and 5 to 7 for what
    /// the last step has less than [`ROW`] bytes.
    fn new(bytes: usize) -> Shapes {
        let rest = bytes % ROW;
        let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        shapes.row_bytes[..8].fill(ROW as u16);
        shapes.rows[..8].fill(16);
        if rest > 0 {
            shapes.row_bytes[5] = rest as u16;
            shapes.rows[6..8].fill((rest / 4) as u8);
        }
        shapes
    }
}

/// `$product` of 16 rows of `$bytes` bytes, `$stride` bytes apart, and a panel, into `$acc`.
macro_rules! multiply {
    ($product:literal, $a:expr, $stride:expr, $panel:expr, $bytes:expr, $acc:expr) => {
        asm!(
            "ldtilecfg [{shapes}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloadd tmm2, [{a} + {stride}]",
            "tileloadd tmm3, [{b} + {panel_row}]",
            "tileloadd tmm4, [{b} + {panel_row} + 64]",
            concat!($product, " tmm0, tmm2, tmm3"),
            concat!($product, " tmm1, tmm2, tmm4"),
            "add {a}, 64",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "test {rest}, {rest}",
            "jz 4f",
            "tileloadd tmm5, [{a} + {stride}]",
            "tileloadd tmm6, [{b} + {panel_row}]",
            "tileloadd tmm7, [{b} + {panel_row} + 64]",
            concat!($product, " tmm0, tmm5, tmm6"),
            concat!($product, " tmm1, tmm5, tmm7"),
            "4:",
            "tilestored [{acc} + {panel_row}], tmm0",
            "tilestored [{acc} + {panel_row} + 64], tmm1",
            "tilerelease",
            shapes = in(reg) &Shapes::new($bytes),
            a = inout(reg) $a => _,
            b = inout(reg) $panel => _,
            stride = in(reg) $stride,
            panel_row = in(reg) PANEL_ROW,
            steps = inout(reg) $bytes / ROW => _,
            rest = in(reg) $bytes % ROW,
            acc = in(reg) $acc,
            options(nostack)
        )
    };
}

/// 16 x 32, `tdpbusd`: u8 activations times i8 weights.
///
/// # Safety
/// The CPU and the kernel permit AMX: an [`Amx`] token exists; 16 rows of `k` bytes in `a`, `k * 32` in `panel`; `k` a multiple of 4.
#[inline(never)]
pub unsafe fn dot(a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    // SAFETY: the caller's lengths cover every access: rows of `k` bytes, panel rows of 128 bytes for every 4 of them, 16 rows of sums.
    unsafe { multiply!("tdpbusd", a.as_ptr(), stride, panel.as_ptr(), k, acc.0.as_mut_ptr()) };
}

/// 16 x 32, `tdpbf16ps`: pairs of bfloat16, summed in f32.
///
/// # Safety
/// The CPU and the kernel permit AMX: an [`Amx`] token exists; 16 rows of `k` values in `a`, `k * 32` in `panel`; `k` a multiple of 2.
#[inline(never)]
pub unsafe fn half(a: &[u16], stride: usize, panel: &[u16], k: usize, acc: &mut TileOf<f32>) {
    // SAFETY: the caller's lengths cover every access: rows of `2 k` bytes, panel rows of 128 bytes for every 2 values, 16 rows of sums.
    unsafe { multiply!("tdpbf16ps", a.as_ptr(), 2 * stride, panel.as_ptr(), 2 * k, acc.0.as_mut_ptr()) };
}

/// Rounds of products in registers, ten in each; the products of one, over ten: see [`crate::kernels::peak`].
///
pub fn peak(_: Amx, iterations: u64) -> u64 {
    if iterations > 0 {
        // SAFETY: the token exists only where the CPU and the kernel permit AMX. The shapes are valid, the registers hold zeros, and no
        // memory but the shapes is read.
        unsafe {
            asm!(
                "ldtilecfg [{shapes}]",
                ".irp r,0,1,2,3,4,5,6,7",
                "tilezero tmm\\r",
                ".endr",
                "2:",
                ".irp r,0,1,2,3,4,0,1,2,3,4",
                "tdpbusd tmm\\r, tmm6, tmm7",
                ".endr",
                "dec {rounds}",
                "jnz 2b",
                "tilerelease",
                shapes = in(reg) &Shapes::new(ROW),
                rounds = inout(reg) iterations => _,
                options(nostack)
            );
        }
    }
    16 * 16 * 64
}
