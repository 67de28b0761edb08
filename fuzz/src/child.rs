//! Runs the part of a target that enters the inference engine in a child, as the daemon tries candidate models in one.
//!
//! ```text
//! parent                     child (fork)
//! waits                      job; panic or abort in our code: says so, ends with OURS ──▶ the parent panics: a finding
//!                            panic in the engine: an error, as in production          ──▶ contained, counted
//!                            a signal, CPU time or memory used up                     ──▶ contained, counted
//! takes the counters over    its coverage, if it came to the end
//! ```
//!
//! Who is to blame is told by where a panic stands: paths of the workspace are relative, those of other crates and of the standard library
//! are not. What panics inside the standard library is blamed on the first frame above it that is ours or another crate's.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use eomt_edge_core::model::is_contained;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, WaitStatus, setrlimit, waitpid};

/// Exit code: our own code panicked or asked for too much.
const OURS: i32 = 101;
/// Exit code: another crate did, where nothing catches it.
const THEIRS: i32 = 102;
/// Exit code: it came to its end, and the model's loader caught panics of another crate on the way.
const CAUGHT: i32 = 103;
/// Of CPU time for one input.
const SECONDS_MAX: u64 = 10;
/// Of address space beyond what the parent has.
const BYTES_MAX: u64 = 3 << 30;

static IS_CHILD: AtomicBool = AtomicBool::new(false);
static HAS_CAUGHT: AtomicBool = AtomicBool::new(false);
static CONTAINED: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());
/// What the child says to its parent, and its coverage.
static REPORT: std::sync::OnceLock<File> = std::sync::OnceLock::new();

/// Runs `job` in a child. Panics when our own code failed in it.
pub(crate) fn contained(job: impl FnOnce()) {
    let report = REPORT.get_or_init(|| memfd_create("report", MemfdFlags::CLOEXEC).expect("a memfd").into());
    ftruncate(report, 0).expect("our own memfd");
    // SAFETY: the child is a copy of this thread alone. glibc keeps its allocator usable across fork, no other lock is held here, and the
    // child ends by _exit without running anything of the parent's.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        become_child();
        // a panic of ours is a finding even where no hook ends it at once
        if std::panic::catch_unwind(AssertUnwindSafe(job)).is_err() {
            let _ = report.write_all_at(b"a panic in the child", 0);
            exit(OURS);
        }
        let _ = report.write_all_at(coverage::counters(), 0);
        exit(if HAS_CAUGHT.load(Ordering::Relaxed) { CAUGHT } else { 0 });
    }
    let pid = Pid::from_raw(pid).expect("fork");
    let wait = || waitpid(Some(pid), WaitOptions::empty());
    let (_, status) = rustix::io::retry_on_intr(wait).expect("our own child").expect("it has ended");
    let mut said = vec![0; report.metadata().expect("our own memfd").len() as usize];
    report.read_exact_at(&mut said, 0).expect("our own memfd");
    match status.exit_status() {
        Some(0) => coverage::take_over(&said),
        Some(CAUGHT) => {
            coverage::take_over(&said);
            count("a panic of the engine, which became an error".to_owned());
        }
        Some(OURS) => panic!("in the child: {}", String::from_utf8_lossy(&said)),
        _ => count(death(status, &said)),
    }
}

/// What a panic, which stands in `file`, or an allocation that is too large means in a child: another crate's panic goes on when somebody
/// will catch it, all else ends the child with a reason. False in the parent.
pub(crate) fn judge_in_child(what: &str, file: Option<&str>) -> bool {
    if !IS_CHILD.load(Ordering::Relaxed) {
        return false;
    }
    let trace = std::backtrace::Backtrace::force_capture().to_string();
    let ours = match file {
        Some(file) if !file.starts_with('/') => true,
        Some(file) if !file.starts_with("/rustc/") => false,
        _ => trace_is_ours(&trace),
    };
    if !ours && file.is_some() && is_contained(false) {
        HAS_CAUGHT.store(true, Ordering::Relaxed);
        return true;
    }
    let place = file.unwrap_or("the allocator");
    let said = if ours { format!("{place}: {what}\n{trace}") } else { format!("{place}: {what}") };
    if let Some(report) = REPORT.get() {
        let _ = report.write_all_at(said.as_bytes(), 0);
    }
    exit(if ours { OURS } else { THEIRS });
}

/// Whether the innermost frame outside of the standard library and of this crate is one of the workspace.
fn trace_is_ours(trace: &str) -> bool {
    let names = trace.lines().filter_map(|line| line.split_once(": ").map(|(_, name)| name.trim_start_matches('<')));
    let outside = |name: &&str| {
        let inner = ["std::", "core::", "alloc::", "eomt_edge_fuzz::", "rust_", "__rust", "_", "rustc"];
        !inner.iter().any(|prefix| name.starts_with(prefix))
    };
    names.into_iter().find(outside).is_some_and(|name| name.starts_with("eomt_edge"))
}

fn become_child() {
    IS_CHILD.store(true, Ordering::Relaxed);
    // SAFETY: the default action of these signals replaces libFuzzer's, which would call this a finding; alarm ends a child that sleeps.
    unsafe {
        for signal in [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGALRM, libc::SIGXCPU, libc::SIGTRAP]
        {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::alarm(6 * SECONDS_MAX as u32);
    }
    let set = |resource, value| {
        let _ = setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    };
    set(Resource::Core, 0);
    set(Resource::Cpu, SECONDS_MAX);
    // AddressSanitizer reserves terabytes
    if !cfg!(fuzzing) {
        let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        // pages of 4 KiB; where they are larger, the bound is lower by what the parent has
        set(Resource::As, pages.unwrap_or(0) * 4096 + BYTES_MAX);
    }
}

fn exit(code: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(code) }
}

/// How a child died of what is not ours.
fn death(status: WaitStatus, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    // the name of a crate and of a file tell enough; the input itself stays out
    let place = said.split_once(": ").map_or("", |(place, _)| place);
    let place = place.split_once("registry/src/").and_then(|(_, path)| path.split_once('/')).map_or(place, |(_, path)| path);
    match status.terminating_signal() {
        Some(signal) => format!("signal {signal}"),
        None => format!("the end in {place}"),
    }
}

/// Counts what was contained; printed when the process ends.
fn count(what: String) {
    let mut counts = CONTAINED.lock().expect("no panic holds it");
    if counts.is_empty() {
        // SAFETY: the function is one that may run at the end of a process.
        unsafe { libc::atexit(print_contained) };
    }
    *counts.entry(what).or_default() += 1;
}

#[allow(clippy::print_stderr)]
extern "C" fn print_contained() {
    if let Ok(counts) = CONTAINED.lock() {
        counts.iter().for_each(|(what, count)| eprintln!("contained: {count} x {what}"));
    }
}

/// The engine's counters of edges, which lie in the memory of each process.
#[cfg(any(libfuzzer, fuzzing))]
mod coverage {
    // SAFETY: the linker defines both for the section of the counters, which every build for libFuzzer has.
    unsafe extern "C" {
        #[link_name = "__start___sancov_cntrs"]
        static mut START: u8;
        #[link_name = "__stop___sancov_cntrs"]
        static mut STOP: u8;
    }

    /// Those of this process.
    pub(super) fn counters() -> &'static [u8] {
        // SAFETY: between the two lie the counters, plain bytes. The one thread of the child reads them; that code which runs meanwhile
        // counts on changes a number and nothing else.
        unsafe { std::slice::from_raw_parts(&raw const START, (&raw const STOP).offset_from_unsigned(&raw const START)) }
    }

    /// Those of a child that came to its end: it started with ours and went on.
    pub(super) fn take_over(counters: &[u8]) {
        for (at, counter) in counters.iter().enumerate() {
            // SAFETY: the child has as many counters as this process, of which it is a copy.
            unsafe { (&raw mut START).add(at).write_volatile(*counter) };
        }
    }
}

/// Without an engine nothing is counted.
#[cfg(not(any(libfuzzer, fuzzing)))]
mod coverage {
    pub(super) fn counters() -> &'static [u8] {
        &[]
    }

    pub(super) fn take_over(_: &[u8]) {}
}
