//! A marker in the instruction stream that an instruction counter finds: see `benches/a64count`.

/// Ends a counted section. On 64-bit ARM the instruction `hint #112`, which every core takes for a NOP; elsewhere nothing.
#[inline]
pub fn mark() {
    // SAFETY: an unallocated hint is architecturally a NOP; it touches neither registers, flags nor the stack. It is not
    // `nomem`, so that no memory access of the counted section moves past it.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("hint #112", options(nostack, preserves_flags));
    }
}

/// Once in every turn of a loop whose body is full vectors already: no instruction, but the compiler then leaves it at that, instead of
/// vectorizing over the turns as well, with gathers.
#[inline(always)]
pub fn vectorization_barrier() {
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    // SAFETY: there is nothing in it.
    unsafe {
        std::arch::asm!("", options(nomem, nostack, preserves_flags));
    }
}
