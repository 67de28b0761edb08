//! The allocator of the fuzz targets: the system's, with an end to what one call may ask for.
//!
//! Rust's parsers fail by asking for too much at once (`vec![0; count]` of a count that nobody checked). The kernel promises such memory
//! without having it, so that nothing is noticed until it is touched: here it is a finding at once.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Larger allocations go to [`refuse`].
static BYTES_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);

pub(crate) fn limit(bytes_max: usize) {
    BYTES_MAX.store(bytes_max, Ordering::Relaxed);
}

struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

// SAFETY: every call is handed to the system's allocator unchanged, or ends the process.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promises are those of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promises are those of this very function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: the caller's promises are those of this very function.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those of this very function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn check(bytes: usize) {
    if bytes > BYTES_MAX.load(Ordering::Relaxed) {
        refuse(bytes);
    }
}

/// An allocator may not unwind, so this ends the process, or the child that the inference engine runs in.
#[cold]
fn refuse(bytes: usize) -> ! {
    limit(usize::MAX); // what follows allocates
    let what = format!("{bytes} bytes at once");
    super::child::judge_in_child(&what, None);
    super::finding::finding(&what)
}
