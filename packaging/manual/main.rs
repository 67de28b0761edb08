//! Writes the manual pages and the shell completions: `cargo run --example manual -- DIR`.
//!
//! A program of its own, not a hidden command: the device's binary need not carry what only the package's build uses.
//! Invariant: the pages are `src/cli` and `config/eomt-edge.toml` as they stand, so they cannot say something else; only what neither
//! of them knows (files, signals, exit status) is written by hand, in `*.roff` beside this file.

mod config_page;
mod pages;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).context("usage: manual DIR")?);
    for page in pages::all()? {
        write(&directory.join("man"), &page.file, page.text.as_bytes())?;
    }
    // as Debian's policies and the shells' own search paths name them
    for (shell, file) in [(Shell::Bash, "bash/eomt-edge"), (Shell::Zsh, "zsh/_eomt-edge"), (Shell::Fish, "fish/eomt-edge.fish")] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut pages::command(), "eomt-edge", &mut script);
        write(&directory.join("completions"), file, &script)?;
    }
    Ok(())
}

/// A file under another name until it is whole.
fn write(directory: &Path, file: &str, content: &[u8]) -> anyhow::Result<()> {
    let path = directory.join(file);
    let parent = path.parent().unwrap_or(directory);
    std::fs::create_dir_all(parent).with_context(|| format!("{}: cannot be made", parent.display()))?;
    let temporary = path.with_extension("partial");
    std::fs::write(&temporary, content).with_context(|| format!("{}: cannot be written", temporary.display()))?;
    std::fs::rename(&temporary, &path).with_context(|| format!("{}: cannot be renamed", temporary.display()))
}
