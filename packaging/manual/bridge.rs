//! Writes the manual pages and the shell completions of `eomt-edge-bridge`: `cargo run -p eomt-edge-bridge --example bridge_manual -- DIR`.

mod pages;

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

/// What no definition knows.
const BY_HAND: &[(&str, &str)] = &[("", include_str!("eomt-edge-bridge.roff"))];

fn main() -> anyhow::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).context("usage: bridge_manual DIR")?);
    pages::Program::new(eomt_edge_bridge::cli::Cli::command(), BY_HAND).write(&directory)
}
