//! A marker in the instruction stream that an instruction counter finds: see `benches/a64count`.

/// Ends a counted section: on 64-bit ARM the instruction `hint #112`, a NOP on every core; elsewhere nothing.
#[inline]
pub fn mark() {
    // SAFETY: an unallocated hint is architecturally a NOP; it touches neither registers, flags nor the stack. It is not
    // `nomem`, so that no memory access of the counted section moves past it.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("hint #112", options(nostack, preserves_flags));
    }
}

/// A vectorization barrier: it emits no instruction, but keeps the compiler from vectorizing across iterations of the loop around it,
/// with gathers. For loops whose body fills whole vectors already.
#[inline(always)]
pub fn vectorization_barrier() {
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    // SAFETY: the assembly is empty: no instruction, register or memory.
    unsafe {
        std::arch::asm!("", options(nomem, nostack, preserves_flags));
    }
}
