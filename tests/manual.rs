//! The manual pages and completions say what the program takes, and the configuration's page explains every key.

use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use eomt_edge::cli::Cli;

/// What `packaging/manual` writes, by file name.
fn written() -> std::path::PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let example = test.parent().and_then(Path::parent).expect("target/.../deps").join("examples/manual");
    let directory = std::env::temp_dir().join(format!("eomt-manual-{}", std::process::id()));
    let runner = std::env::var("EOMT_EDGE_TEST_RUNNER").unwrap_or_default();
    let mut words: Vec<&str> = runner.split_whitespace().collect();
    words.push(example.to_str().expect("UTF-8"));
    let status = Command::new(words[0]).args(&words[1..]).arg(&directory).status();
    assert!(status.expect("run `cargo build --examples` first").success());
    directory
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_command_option_and_key_has_its_entry() {
    let directory = written();
    let mut command = Cli::command();
    command.build();
    // roff writes a hyphen as \-
    let option = |name: &str| format!("\\-\\-{}", name.replace('-', "\\-"));
    let (overview, bash) = (read(&directory.join("man/eomt-edge.1")), read(&directory.join("completions/bash/eomt-edge")));
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "help") {
        let name = subcommand.get_name();
        assert!(overview.contains(name), "eomt-edge(1) does not name {name}");
        let page = read(&directory.join(format!("man/eomt-edge-{name}.1")));
        for long in subcommand.get_arguments().filter(|argument| !argument.is_hide_set()).filter_map(|argument| argument.get_long()) {
            assert!(page.contains(&option(long)), "eomt-edge-{name}(1) does not explain --{long}");
            assert!(bash.contains(&format!("--{long}")), "no completion of --{long}");
        }
    }
    let page = read(&directory.join("man/eomt-edge.toml.5"));
    for line in include_str!("../config/eomt-edge.toml").lines().map(|line| line.trim_start_matches("# ")) {
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_')) else {
            continue;
        };
        assert!(page.contains(key) || page.contains(&key.replace('_', "\\_")), "eomt-edge.toml(5) does not explain {key}");
    }
    assert!(!page.contains("No explanation"), "a key without a comment in config/eomt-edge.toml");
    std::fs::remove_dir_all(directory).expect("ours");
}
