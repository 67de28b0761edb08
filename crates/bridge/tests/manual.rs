//! The manual pages and completions say what the program takes: every command, option and argument that `--help` shows.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use eomt_edge_bridge::cli::Cli;

/// What `packaging/manual/bridge.rs` writes, by file name.
fn written() -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let example = test.parent().and_then(Path::parent).expect("target/.../deps").join("examples/bridge_manual");
    let directory = std::env::temp_dir().join(format!("eomt-bridge-manual-{}", std::process::id()));
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
fn every_command_and_option_has_its_entry() {
    let directory = written();
    let mut command = Cli::command();
    command.build();
    let overview = read(&directory.join("man/eomt-edge-bridge.1"));
    let bash = read(&directory.join("completions/bash/eomt-edge-bridge"));
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "help") {
        let name = subcommand.get_name();
        assert!(overview.contains(&format!("eomt\\-edge\\-bridge\\-{name}(1)")), "eomt-edge-bridge(1) does not name {name}");
        let page = read(&directory.join(format!("man/eomt-edge-bridge-{name}.1")));
        for argument in subcommand.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let id = argument.get_id();
            assert!(argument.get_help().is_some(), "{name}: {id} has no explanation");
            match argument.get_long() {
                Some(long) => {
                    // roff writes a hyphen as \-
                    assert!(
                        page.contains(&format!("\\-\\-{}", long.replace('-', "\\-"))),
                        "eomt-edge-bridge-{name}(1) does not explain --{long}"
                    );
                    assert!(bash.contains(&format!("--{long}")), "no completion of --{long}");
                }
                None => {
                    let value = argument.get_value_names().expect("a positional argument")[0].as_str();
                    assert!(page.contains(value), "eomt-edge-bridge-{name}(1) does not explain {value}");
                }
            }
        }
    }
    std::fs::remove_dir_all(directory).expect("ours");
}
