//! What goes wrong, as one sentence on standard error: errors, wrong usage, and bugs.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use eomt_edge::cli::Cli;
use eomt_edge_host::output::sentence;

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

/// From here on a panic of any thread is one sentence too. The main thread's ends the program with [`BUG`].
pub fn bugs_in_one_sentence() {
    std::panic::set_hook(Box::new(|panic| {
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
}
