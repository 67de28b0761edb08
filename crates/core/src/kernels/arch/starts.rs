//! Pointers to the rows of a tile.

/// The starts of the rows of a tile, in registers of their own: the compiler would add the stride again and again in every step.
#[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read through them there
#[inline(always)]
pub fn starts<T, const ROWS: usize>(first: *const T, stride: usize) -> [*const T; ROWS] {
    std::array::from_fn(|r| {
        let mut start = first.wrapping_add(r * stride);
        // SAFETY: no instruction at all; the compiler just no longer knows where the value is from.
        unsafe { std::arch::asm!("/* {start} */", start = inout(reg) start, options(pure, nomem, nostack, preserves_flags)) };
        start
    })
}
