//! Whether this process may use the matrix registers of AMX.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

/// Whether the CPU has products of bytes and of bfloat16, and the operating system lets this process use them. A process has to
/// ask, since the registers take 8 KiB of every thread's saved state (Documentation/arch/x86/xstate.rst).
pub fn permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        const BF16: u32 = 1 << 22;
        const TILE: u32 = 1 << 24;
        const INT8: u32 = 1 << 25;
        let all = BF16 | TILE | INT8;
        __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & all == all && ask()
    })
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
fn ask() -> bool {
    let result: i64;
    // SAFETY: a system call that takes two numbers; the kernel changes the three registers below.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 158_i64 => result, // arch_prctl
            in("rdi") 0x1023, // ARCH_REQ_XCOMP_PERM
            in("rsi") 18, // XFEATURE_XTILEDATA
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    result == 0
}
