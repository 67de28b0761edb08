//! Writes the manual pages and the shell completions: `cargo run --example manual -- DIR`.
//!
//! A program of its own, not a hidden command: the device's binary need not carry what only the package's build uses.
//! Invariant: the pages are `src/cli` and `config/eomt-edge.toml` as they stand, so they cannot say something else; only what neither
//! of them knows (files, signals, exit status) is written by hand, in `*.roff` beside this file.

mod config_page;
mod pages;

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

/// What no definition knows.
const BY_HAND: &[(&str, &str)] = &[("", include_str!("eomt-edge.roff")), ("run", include_str!("run.roff"))];

fn main() -> anyhow::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).context("usage: manual DIR")?);
    pages::Program::new(eomt_edge::cli::Cli::command(), BY_HAND).write(&directory)?;
    pages::write(&directory.join("man"), "eomt-edge.toml.5", config_page::render().as_bytes())
}
