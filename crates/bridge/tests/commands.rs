//! The command lines that others read are ones that the program takes: those of the services, with the options that they suggest, and those of the
//! documents.

use std::path::{Path, PathBuf};

use clap::Parser;
use eomt_edge_bridge::cli::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(directory: &str, name: impl Fn(&str) -> bool) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(root().join(directory)).expect("readable");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let wanted = paths.filter(|path| path.file_name().and_then(|file| file.to_str()).is_some_and(&name));
    wanted.map(|path| (path.clone(), std::fs::read_to_string(&path).expect("UTF-8"))).collect()
}

/// The words of a line as a shell without quotes would have them, up to a comment or a redirection.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().take_while(|word| !word.starts_with(['#', '|', '>', '&']) && !word.starts_with("2>")).collect()
}

fn accept(path: &Path, words: &[&str]) {
    if let Err(error) = Cli::try_parse_from(words)
        && error.use_stderr()
    {
        panic!("{}: {}: {error}", path.display(), words.join(" "));
    }
}

#[test]
fn services_start_what_there_is() {
    let units = files("systemd", |name| name.starts_with("eomt-edge-") && name.ends_with(".service"));
    assert!(!units.is_empty());
    for (path, unit) in &units {
        let value = |start: &str| unit.lines().find_map(|line| line.strip_prefix(start));
        let command = value("ExecStart=").expect("ExecStart=");
        assert!(command.ends_with(" $OPTIONS"), "{}: {command} takes no options", path.display());
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8");
        assert_eq!(value("EnvironmentFile=-"), Some(format!("/etc/default/{name}").as_str()));
        let default = value("Environment=OPTIONS=").or_else(|| value("Environment=\"OPTIONS=")).expect("OPTIONS without a file");
        let suggested = value(&format!("# Options belong in /etc/default/{name}: OPTIONS=")).expect("a suggestion");
        for options in [default, suggested] {
            accept(path, &words(&command.replace("$OPTIONS", options.trim_matches('"'))));
        }
    }
}

#[test]
fn documented_commands_are_taken() {
    let pages = files("docs", |name| name.ends_with(".md"));
    let mut count = 0;
    for (path, page) in &pages {
        let blocks = page.split("```").skip(1).step_by(2).filter(|block| block.starts_with("sh\n"));
        for line in blocks.flat_map(str::lines).filter(|line| line.starts_with("eomt-edge-bridge ")) {
            accept(path, &words(line));
            count += 1;
        }
    }
    assert!(count > 5, "only {count} commands in {} pages", pages.len());
}
