//! What goes wrong, as one sentence on standard error: errors, wrong usage, and bugs.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use eomt_edge::cli::Cli;
use eomt_edge_host::model_file::is_thread_without_memory;
use eomt_edge_host::output::sentence;
use signal_hook::low_level;

use crate::logging;

/// Prints an error and its causes.
pub fn error(error: &anyhow::Error) {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // an error whose text already contains its source says it once
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(cause.trim_end());
    }
    say(&text);
}

/// Prints what clap found, which repeats arguments as they are; help and version go to standard output. Exits with 2 for wrong usage.
pub fn usage(error: &clap::Error) -> ExitCode {
    let is_help = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
    if is_help.contains(&error.kind()) {
        // nothing of it comes from outside; a closed output is no failure
        let _ = error.print();
        return ExitCode::from(error.exit_code() as u8);
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // the usage line and the pointer to the help come last, whatever the arguments were
    let end = text.rfind("\n\nUsage: ").or_else(|| text.rfind("\n\nFor more information")).unwrap_or(text.len());
    let known = |name: &String| Cli::command().find_subcommand(name).is_some();
    let command = std::env::args_os().nth(1).and_then(|name| name.into_string().ok()).filter(known);
    let command = command.map_or_else(String::new, |name| format!(" {name}"));
    let line = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts: Vec<String> = text[..end].split("\n\n").map(line).collect();
    say(&format!("{}; eomt-edge{command} --help tells more", parts.join("; ")));
    ExitCode::from(2)
}

/// From here on a panic of any thread is one sentence too. The main thread's ends the program with [`BUG`], and so does one that only says that a new
/// thread found no memory.
pub fn bugs_in_one_sentence() {
    std::panic::set_hook(Box::new(|panic| {
        if is_thread_without_memory(panic) {
            say("out of memory: a new thread has none for its signal handlers (`ulimit -v`, `ulimit -d`, the machine's memory)");
            low_level::exit(i32::from(BUG));
        }
        let place = panic.location().map_or_else(String::new, |place| format!("{}:{}", place.file(), place.line()));
        let arguments: Vec<String> = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
        say(&bug(panic.payload_as_str().unwrap_or("no message"), &place, std::thread::current().name(), &arguments));
    }));
}

/// The exit code of a bug: that of every failure but wrong usage.
pub const BUG: u8 = 1;

fn bug(what: &str, place: &str, thread: Option<&str>, arguments: &[String]) -> String {
    let (version, thread) = (env!("CARGO_PKG_VERSION"), thread.unwrap_or("without a name"));
    let arguments = sentence(&arguments.join(" "));
    format!(
        "this is a bug in eomt-edge {version}, in thread {thread} at {place}, started as eomt-edge {arguments}: {what}; \
         please report it with the files that it was given, as SECURITY.md says"
    )
}

/// One line on standard error. Where nobody can read it, the exit code says enough.
fn say(text: &str) {
    let priority = if logging::under_journald() { "<3>" } else { "" };
    let _ = writeln!(std::io::stderr(), "{priority}eomt-edge: {}", sentence(text)); // eprintln! would panic
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{Resource, Rlimit};

    use super::*;

    #[test]
    fn a_bug_is_told_with_what_a_report_needs() {
        let arguments = ["convert".to_owned(), "x".repeat(5000), "-o\u{1b}".to_owned()];
        let said = sentence(&bug("index out of bounds", "src/a.rs:7", Some("eomt-load"), &arguments));
        for part in ["eomt-edge 0.", "thread eomt-load at src/a.rs:7", "eomt-edge convert xxx", "-o\\u001b: index", "please report it"] {
            assert!(said.contains(part), "'{part}' is missing in: {said}");
        }
        assert!(said.chars().count() <= 1000 && said.lines().count() == 1);
        // a hook that panics would end the process at once
        std::thread::spawn(|| {
            bugs_in_one_sentence();
            panic!("as a test");
        })
        .join()
        .expect_err("it panics");
        let _ = std::panic::take_hook();
    }

    /// Memory for a thread's stack, and for little else: tried in steps smaller than what a signal handler needs, each in a process of its own.
    #[test]
    fn a_thread_without_memory_is_told_as_that() {
        const MORE: &str = "EOMT_EDGE_TEST_MORE_MEMORY";
        const STACK: u64 = 1 << 20;
        if std::env::var_os("EOMT_EDGE_TEST_RUNNER").is_some() {
            return; // the limit would be the emulator's
        }
        if let Some(more) = std::env::var(MORE).ok().and_then(|more| more.parse::<u64>().ok()) {
            bugs_in_one_sentence();
            let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
            let held = status.lines().find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB")).expect("a field");
            let limit = Some((held.parse::<u64>().expect("a number") << 10) + more);
            rustix::process::setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit }).expect("a lower limit");
            let thread = std::thread::Builder::new().stack_size(STACK as usize).spawn(|| {});
            std::process::exit(if thread.is_ok_and(|thread| thread.join().is_ok()) { 0 } else { 3 });
        }
        let mut told = 0;
        for more in (STACK - (64 << 10)..STACK + (512 << 10)).step_by(4 << 10) {
            let mut again = Command::new(std::env::current_exe().expect("this test"));
            again.args(["--exact", "report::tests::a_thread_without_memory_is_told_as_that", "--nocapture"]);
            let output = again.env(MORE, more.to_string()).output().expect("it starts");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!said.contains("initiate panic") && !said.contains("bug in"), "{more}: {said}");
            told += u32::from(said.contains("out of memory: a new thread") && output.status.code() == Some(i32::from(BUG)));
        }
        assert!(told > 0, "no step met the case");
    }
}
