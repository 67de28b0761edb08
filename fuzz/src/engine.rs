//! From a target to a program: under libFuzzer, under `cargo fuzz`, or over files that are given.
//!
//! ```text
//! make fuzz                       cfg(libfuzzer): main calls libFuzzer's driver, which scripts/fuzz.sh links
//! cargo fuzz run config           cfg(fuzzing):   libfuzzer-sys has the main
//! cargo run --bin config FILE..   neither:        runs the files, to look at one finding
//! ```
//!
//! Invariant: a panic anywhere in the process, whichever thread, is an abort, which engines see.
#![allow(unsafe_code)]

use super::finding::finding;
use super::{Target, child, find, memory};

/// Makes a program of the target with this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(init: { $crate::engine::prepare($name); }, |input: &[u8]| { $crate::engine::run(input); });

        #[cfg(not(fuzzing))]
        fn main() {
            $crate::engine::main($name);
        }
    };
}

static TARGET: std::sync::OnceLock<&Target> = std::sync::OnceLock::new();

/// Chooses the target of this process and makes its panics aborts.
pub fn prepare(name: &str) {
    let target = find(name).unwrap_or_else(|| panic!("there is no target {name}"));
    TARGET.set(target).expect("a program has one target");
    memory::limit(target.bytes_max);
    // the first load silences panics that it contains; the hook below comes after it, and judges them first
    let _ = eomt_edge_host::model_file::load("/nonexistent/model.onnx".as_ref(), &Default::default());
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(|at| (at.file().to_owned(), at.line()));
        let what = panic.payload_as_str().unwrap_or("a panic without words");
        if child::judge_in_child(what, at.as_ref().map(|(file, _)| file.as_str())) {
            return;
        }
        memory::limit(usize::MAX);
        let (file, line) = at.unwrap_or_default();
        finding(&format!("{file}:{line}: {what}"))
    }));
}

/// One input, in the target that [`prepare`] chose.
pub fn run(input: &[u8]) {
    (TARGET.get().expect("prepare comes first").run)(input);
}

/// Runs the files that the arguments name.
#[cfg(not(libfuzzer))]
pub fn main(name: &str) {
    prepare(name);
    for path in std::env::args_os().skip(1) {
        let input = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        run(&input);
        println!("{}: no finding", path.display());
    }
}

/// Runs libFuzzer's driver with the arguments of this process.
#[cfg(libfuzzer)]
pub fn main(name: &str) {
    use std::ffi::{CString, c_char, c_int};
    use std::os::unix::ffi::OsStringExt;

    // SAFETY: the declaration is FuzzerInterface.h's; libFuzzer is linked (scripts/fuzz-rustc.sh).
    unsafe extern "C" {
        fn LLVMFuzzerRunDriver(argc: *mut c_int, argv: *mut *mut *mut c_char, run: extern "C" fn(*const u8, usize) -> c_int) -> c_int;
    }

    extern "C" fn one(data: *const u8, size: usize) -> c_int {
        // SAFETY: libFuzzer hands over `size` readable bytes that stay as they are during the call; with none the pointer may be null.
        let input = if size == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, size) } };
        run(input);
        0
    }

    prepare(name);
    // Rust's runtime gave this thread a second stack for signals; so libFuzzer's handlers run even when the first one has overflowed.
    // SAFETY: the structure is plain numbers, of which all zeros are a value, and the handler is the default one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
    }
    let words: Vec<CString> = std::env::args_os().map(|word| CString::new(word.into_vec()).expect("an argument has no NUL")).collect();
    let mut pointers: Vec<*mut c_char> = words.iter().map(|word| word.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect();
    let (mut argc, mut argv) = (words.len() as c_int, pointers.as_mut_ptr());
    // SAFETY: argc and argv are as a main function gets them, and live until the process ends.
    let status = unsafe { LLVMFuzzerRunDriver(&mut argc, &mut argv, one) };
    std::process::exit(status);
}
