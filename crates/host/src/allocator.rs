//! The C library's allocator.

/// Gives free memory back to the system. Loading a model frees as much as it keeps; glibc would hold on to it for as long as the process lives.
#[allow(unsafe_code)]
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) touches free memory only, and locks what it touches.
    unsafe {
        libc::malloc_trim(0);
    }
}
