//! The map in `src/lib.rs`, enforced: which room imports which, where `unsafe` and `std::arch` may stand, how long files are,
//! and that the documented commands and configuration parse.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser;

/// Room and what it may import with `crate::`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("data", &[]),
    ("kernels", &[]),
    ("config", &["data"]),
    ("overlay", &["data"]),
    ("preprocess", &["data", "kernels"]),
    ("model", &["data", "kernels"]),
    ("segment", &["data", "kernels"]),
    ("model_file", &["data", "model", "kernels"]),
    ("pipeline", &["data", "preprocess", "model", "segment"]),
    ("source", &["data", "pipeline", "preprocess"]),
    ("sink", &["data", "pipeline", "preprocess", "client", "config", "overlay"]),
    (
        "daemon",
        &["data", "kernels", "config", "preprocess", "model", "model_file", "segment", "pipeline", "source", "sink", "client", "overlay"],
    ),
    (
        "tools",
        &["data", "kernels", "config", "preprocess", "model", "model_file", "segment", "pipeline", "source", "sink", "client", "overlay"],
    ),
    ("cli", &["config", "data"]),
    ("client", &[]),
];

/// Rooms whose files may contain `unsafe`.
const UNSAFE_ROOMS: &[&str] = &["sink/ring", "sink/display/framebuffer/ioctl.rs", "source/v4l2/sys", "client", "tools/ort"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file: its room, its path from the root with `clients/rust` as `client`, its text.
fn sources() -> Vec<(String, String, String)> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    rust_files(&root().join("clients/rust"), &mut files);
    assert!(files.len() > 50, "the walk finds the sources");
    let describe = |path: PathBuf| {
        let relative = path.strip_prefix(root()).expect("below").to_string_lossy().into_owned();
        let short = relative.replacen("src/", "", 1).replacen("clients/rust/", "client/", 1);
        let room = short.split('/').next().expect("a first part").trim_end_matches(".rs").to_owned();
        (room, short, std::fs::read_to_string(path).expect("UTF-8"))
    };
    files.into_iter().map(describe).collect()
}

/// The code before `#[cfg(test)]` at the start of a line.
fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or(text)
}

#[test]
fn rooms_import_only_what_the_map_allows() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    for (room, file, text) in sources() {
        if ["lib", "main", "commands", "logging"].contains(&room.as_str()) {
            continue;
        }
        let allowed = allowed.get(room.as_str()).unwrap_or_else(|| panic!("{file}: the room '{room}' is not on the map"));
        for line in code(&text).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for target in line.split("crate::").skip(1) {
                let target: String = target.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if target != room && !allowed.contains(&target.as_str()) {
                    wrong.push(format!("{file}: {room} imports {target}: {}", line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_and_cpu_intrinsics_stay_in_their_rooms() {
    for (_, file, text) in sources() {
        let may_unsafe = UNSAFE_ROOMS.iter().any(|room| file.starts_with(room)) || file.starts_with("kernels/arch/");
        for line in code(&text).lines().filter(|line| !line.trim_start().starts_with("//")) {
            let has_unsafe = line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
            assert!(!has_unsafe || may_unsafe, "{file}: {line}");
            assert!(!line.contains("std::arch") || file.starts_with("kernels/arch/"), "{file}: {line}");
        }
    }
}

#[test]
fn pure_rooms_touch_no_file_clock_or_thread() {
    let forbidden = ["std::fs", "std::time", "std::thread", "std::net", "std::env", "Instant::now", "println!"];
    for (room, file, text) in sources() {
        if !["data", "kernels", "preprocess", "model", "segment", "overlay", "config"].contains(&room.as_str()) {
            continue;
        }
        for word in forbidden {
            let used = code(&text).lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word));
            assert!(!used, "{file} uses {word}");
        }
    }
}

#[test]
fn files_open_with_their_purpose_and_stay_readable() {
    for (_, file, text) in sources() {
        assert!(text.starts_with("//!"), "{file} does not say what it is for");
        let lines = code(&text).lines().count();
        assert!(lines <= 500, "{file} has {lines} lines before its tests");
    }
}

/// Commands in fenced blocks of the README and docs, line continuations joined.
fn documented_commands() -> Vec<String> {
    let mut commands = Vec::new();
    for document in
        ["README.md", "models/README.md", "docs/performance.md", "docs/fine-tuning.md", "clients/python/README.md", "CHANGELOG.md"]
    {
        let text = std::fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"));
        let mut fenced = false;
        for line in text.replace("\\\n", " ").lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
                continue;
            }
            let Some(start) = line.find("eomt-edge ").filter(|_| fenced) else { continue };
            // a pipe or comment ends the command
            let command = line[start..].split(['|', '#', '&', ';', '>']).next().unwrap_or_default().trim();
            commands.push(command.to_owned());
        }
    }
    let unit = std::fs::read_to_string(root().join("systemd/eomt-edge.service")).expect("the unit");
    commands.extend(unit.lines().filter_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).map(str::to_owned));
    commands
}

#[test]
fn documented_commands_parse() {
    let commands = documented_commands();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        // A build without training does not know its command, and must say so.
        let foreign = !cfg!(feature = "train") && command.starts_with("eomt-edge train ");
        let words: Vec<&str> = command.split_whitespace().map(|word| word.trim_matches(['\'', '"'])).collect();
        if let Err(error) = eomt_edge::cli::Cli::try_parse_from(words) {
            if foreign {
                assert_eq!(error.kind(), clap::error::ErrorKind::InvalidSubcommand, "{command}");
                continue;
            }
            let fine = [clap::error::ErrorKind::DisplayHelp, clap::error::ErrorKind::DisplayVersion];
            assert!(fine.contains(&error.kind()), "{command}: {error}");
        }
    }
}
