//! `eomt-edge-bridge`: arguments to subcommand to exit code.

use std::process::ExitCode;

use clap::Parser;
use eomt_edge_bridge::cli::Cli;
use eomt_edge_bridge::logging;
use eomt_edge_bridge::options::Usage;
use eomt_edge_files::output::sentence;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    logging::start(cli.verbose);
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::say(&sentence(&format!("eomt-edge-bridge: {error:#}")));
            ExitCode::from(if error.downcast_ref::<Usage>().is_some() { 2 } else { 1 })
        }
    }
}
