//! Tiles of Intel's Advanced Matrix Extensions: registers of 16 rows of 64 bytes, and instructions that multiply two of them.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18. A panel `[k / 4][32][4]` of bytes or
//! `[k / 2][32][2]` of bfloat16 fills two registers side by side, so these tiles share the layout of
//! the AVX-512 ones. The shapes of the registers are state of the thread, and setting them takes as long as many products (a third of an
//! int8 frame when every tile did): [`Registers`] sets them for a loop and leaves nothing behind, since other
//! code of the process may have shapes of its own, and a thread that keeps none is switched faster.

use std::arch::asm;
use std::cell::Cell;
use std::marker::PhantomData;

use super::tile::{SPLIT_STEP, TileOf};
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

/// All eight registers whole.
static SHAPES: Shapes = {
    let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let mut register = 0;
    while register < 8 {
        shapes.row_bytes[register] = ROW as u16;
        shapes.rows[register] = 16;
        register += 1;
    }
    shapes
};

thread_local! {
    /// Values of [`Registers`] of this thread.
    static SET: Cell<usize> = const { Cell::new(0) };
}

/// The registers of this thread, whole while a value lives.
#[derive(Debug)]
pub struct Registers(PhantomData<*mut ()>);

impl Registers {
    /// Sets the shapes, unless a value of this thread has done so.
    #[inline(always)]
    pub fn set(_: Amx) -> Registers {
        if SET.replace(SET.get() + 1) == 0 {
            // SAFETY: the token exists only where the CPU and the kernel permit AMX; the shapes are valid.
            unsafe { asm!("ldtilecfg [{shapes}]", shapes = in(reg) &SHAPES, options(nostack, readonly, preserves_flags)) };
        }
        Registers(PhantomData)
    }
}

impl Drop for Registers {
    #[inline(always)]
    fn drop(&mut self) {
        SET.set(SET.get() - 1);
        if SET.get() == 0 {
            // SAFETY: a value exists only where the CPU and the kernel permit AMX.
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
        }
    }
}

/// `$product` of 32 rows of `$steps` times 64 bytes, `$stride` bytes apart, and a panel, into `$acc`, rows `$acc_stride` bytes apart. Registers 0 to 3 are the quarters of the
/// sums, 4 and 5 two times 16 rows, 6 and 7 two times 16 columns: four products for four loads, and none waits for the one before it.
macro_rules! multiply {
    ($product:literal, $a:expr, $stride:expr, $panel:expr, $steps:expr, $acc:expr, $acc_stride:expr) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloadd tmm4, [{a} + {stride}]",
            "tileloadd tmm6, [{b} + {panel_row}]",
            concat!($product, " tmm0, tmm4, tmm6"),
            "tileloadd tmm7, [{b} + {panel_row} + 64]",
            concat!($product, " tmm1, tmm4, tmm7"),
            "tileloadd tmm5, [{lower} + {stride}]",
            concat!($product, " tmm2, tmm5, tmm6"),
            concat!($product, " tmm3, tmm5, tmm7"),
            "add {a}, 64",
            "add {lower}, 64",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "tilestored [{acc} + {acc_stride}], tmm0",
            "tilestored [{acc} + {acc_stride} + 64], tmm1",
            "tilestored [{acc_lower} + {acc_stride}], tmm2",
            "tilestored [{acc_lower} + {acc_stride} + 64], tmm3",
            a = inout(reg) $a => _,
            lower = inout(reg) $a.wrapping_byte_add(16 * $stride) => _,
            b = inout(reg) $panel => _,
            stride = in(reg) $stride,
            panel_row = in(reg) PANEL_ROW,
            steps = inout(reg) $steps => _,
            acc = in(reg) $acc,
            acc_lower = in(reg) $acc.wrapping_byte_add(16 * $acc_stride),
            acc_stride = in(reg) $acc_stride,
            options(nostack)
        )
    };
}

/// 32 x 32, `tdpbusd`: u8 activations times i8 weights.
///
/// # Safety
/// [`Registers`] of this thread exist; 32 rows of `k` bytes in `a`, `k * 32` in `panel`; `k` a multiple of 64.
#[inline(always)]
pub unsafe fn dot(a: &[u8], stride: usize, panel: &[i8], k: usize, acc: &mut TileOf<i32>) {
    // SAFETY: the caller's lengths cover every access: rows of `k` bytes, panel rows of 128 bytes for every 4 of them, 32 rows of sums.
    unsafe { multiply!("tdpbusd", a.as_ptr(), stride, panel.as_ptr(), k / ROW, acc.0.as_mut_ptr(), PANEL_ROW) };
}

/// 32 x 32, `tdpbf16ps`: pairs of bfloat16, summed in f32, into rows that are `acc_stride` values apart.
///
/// # Safety
/// [`Registers`] of this thread exist; 32 rows of `k` values in `a`, `k * 32` in `panel`; `k` a multiple of 32; 32 rows of 32 values at `acc`.
#[inline(always)]
pub unsafe fn half(a: &[u16], stride: usize, panel: &[u16], k: usize, acc: *mut f32, acc_stride: usize) {
    // SAFETY: the caller's lengths cover every access: rows of `2 k` bytes, panel rows of 128 bytes for every 2 values, 32 rows of sums.
    unsafe { multiply!("tdpbf16ps", a.as_ptr(), 2 * stride, panel.as_ptr(), 2 * k / ROW, acc, 4 * acc_stride) };
}

/// 32 x 32, `tdpbf16ps` of factors in two parts: the lower part of the left one times the upper of the right one, upper times upper, upper times
/// lower. `acc` starts at zero, or at what is there if `onto`; its rows are `acc_stride` values apart.
///
/// # Safety
/// [`Registers`] of this thread exist; `left` and `right` hold two panels of `steps` steps of 1024 values each; 32 rows of 32 values at `acc`.
#[inline(always)]
pub unsafe fn split(left: &[u16], right: &[u16], steps: usize, onto: bool, acc: *mut f32, acc_stride: usize) {
    let (left, right, panel) = (left.as_ptr(), right.as_ptr(), steps * SPLIT_STEP);
    let lower = acc.wrapping_add(16 * acc_stride);
    // SAFETY: the caller's lengths cover every access: 2048 bytes of four panels in each step, 32 rows of sums. Parts that are not read again make way
    // for the next ones: twelve products for eight loads.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {onto}, {onto}",
            "jz 3f",
            "tileloadd tmm0, [{acc} + {acc_stride}]",
            "tileloadd tmm1, [{acc} + {acc_stride} + 64]",
            "tileloadd tmm2, [{acc_lower} + {acc_stride}]",
            "tileloadd tmm3, [{acc_lower} + {acc_stride} + 64]",
            "3:",
            "test {steps}, {steps}",
            "jz 4f",
            "2:",
            "tileloadd tmm4, [{a} + {row} + 1024]",
            "tileloadd tmm6, [{b} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b2} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a2} + {row} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{a} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a2} + {row}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{b} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{b2} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 2048",
            "add {a2}, 2048",
            "add {b}, 2048",
            "add {b2}, 2048",
            "dec {steps}",
            "jnz 2b",
            "4:",
            "tilestored [{acc} + {acc_stride}], tmm0",
            "tilestored [{acc} + {acc_stride} + 64], tmm1",
            "tilestored [{acc_lower} + {acc_stride}], tmm2",
            "tilestored [{acc_lower} + {acc_stride} + 64], tmm3",
            a = inout(reg) left => _,
            a2 = inout(reg) left.wrapping_add(panel) => _,
            b = inout(reg) right => _,
            b2 = inout(reg) right.wrapping_add(panel) => _,
            row = in(reg) ROW,
            steps = inout(reg) steps => _,
            onto = in(reg) usize::from(onto),
            acc = in(reg) acc,
            acc_lower = in(reg) lower,
            acc_stride = in(reg) 4 * acc_stride,
            options(nostack)
        );
    }
}

/// Rounds of products in registers, ten in each; the products of one, over ten: see [`crate::kernels::peak`].
///
pub fn peak(token: Amx, iterations: u64) -> u64 {
    if iterations > 0 {
        let _registers = Registers::set(token);
        // SAFETY: the token exists only where the CPU and the kernel permit AMX, the shapes are set, the registers hold zeros, and
        // no memory is touched.
        unsafe {
            asm!(
                ".irp r,0,1,2,3,4,5,6,7",
                "tilezero tmm\\r",
                ".endr",
                "2:",
                ".irp r,0,1,2,3,4,0,1,2,3,4",
                "tdpbusd tmm\\r, tmm6, tmm7",
                ".endr",
                "dec {rounds}",
                "jnz 2b",
                rounds = inout(reg) iterations => _,
                options(nostack)
            );
        }
    }
    16 * 16 * 64
}
