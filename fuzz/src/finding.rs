//! The end of a run that found something.

/// Says what was found and where, and aborts, which engines see.
#[allow(clippy::print_stderr)]
pub(crate) fn finding(what: &str) -> ! {
    eprintln!("FINDING {what}\n{}", std::backtrace::Backtrace::force_capture());
    std::process::abort()
}
