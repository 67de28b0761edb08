//! The limits of the process (getrlimit(2)), when somebody has lowered them: what would end the program without a word becomes an error that it
//! can report. Whoever starts another program starts it with the usual behaviour, since handlers do not outlive an exec(2).
#![allow(unsafe_code)] // an allocator

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGABRT, SIGXFSZ};
use signal_hook::{flag, low_level};

/// Commands take less than an eighth of this; a large network's graph is deeper.
const STACK_MIN: u64 = 1 << 20;

/// Must come first: the arguments are read on the stack that this makes sure of.
///
/// # Errors
/// When the stack is too small and must not grow.
pub fn prepare() -> anyhow::Result<()> {
    if !has_stack() {
        anyhow::bail!("the stack is too small: {} KiB are needed (`ulimit -s`, LimitSTACK=)", STACK_MIN >> 10);
    }
    // RLIMIT_FSIZE: the write fails with EFBIG, like one to a full disk. (Rust itself does the same for SIGPIPE.)
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    // what aborts has said why, and an exit code says the rest
    flag::register_conditional_shutdown(SIGABRT, 1, Arc::new(AtomicBool::new(true)))?;
    Ok(())
}

/// RLIMIT_STACK holds for this thread, while it grows; others have their own size.
fn has_stack() -> bool {
    let Rlimit { current, maximum } = getrlimit(Resource::Stack);
    let may_grow = maximum.is_none_or(|maximum| maximum >= STACK_MIN);
    current.is_none_or(|current| current >= STACK_MIN)
        || may_grow && setrlimit(Resource::Stack, Rlimit { current: Some(STACK_MIN), maximum }).is_ok()
}

/// The system's allocator, which ends the program with a sentence when there is no memory (RLIMIT_AS, RLIMIT_DATA): callers that cannot go on without
/// it would abort or panic, and need more memory for that.
pub struct Allocator;

/// Who asks for so much at once has made it up, and may learn that it is too much.
const ABSURD: usize = 1 << 30;

fn checked(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() && size < ABSURD {
        let mut sentence = [0; 128];
        let mut rest = &mut sentence[..];
        let _ = writeln!(rest, "eomt-edge: out of memory: no {size} bytes more (`ulimit -v`, `ulimit -d`, the machine's memory)");
        let unused = rest.len();
        let _ = rustix::io::write(std::io::stderr(), &sentence[..sentence.len() - unused]);
        low_level::exit(1);
    }
    memory
}

// SAFETY: all of it is `System`'s, whose contract is the same; `checked` returns what it was given.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `memory` came from `System` with this layout, and `size` is valid, as the caller promises.
        checked(unsafe { System.realloc(memory, layout, size) }, size)
    }
}
