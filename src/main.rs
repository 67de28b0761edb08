//! `eomt-edge`: arguments to command to exit code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use eomt_edge::cli::{Cli, Command, ControlArgs, ControlCommand, DoctorArgs, RunArgs, ViewArgs};
use eomt_edge::config::{Config, ConfigError};
use eomt_edge::control::{Ask, ControlOptions, control};
use eomt_edge::daemon::{self, DaemonError};
use eomt_edge::doctor::{DoctorOptions, doctor};
use eomt_edge::socket::reap_socket_main;
use eomt_edge::source::exec_source_main;
use eomt_edge::view::{ViewOptions, view};
use eomt_edge_host::bounds;
use eomt_edge_host::files;
use eomt_edge_host::model_file::ModelFileError;
use eomt_edge_host::output::{OutputClosed, UsageError, say};

#[cfg(feature = "tools")]
mod commands;
mod limits;
mod logging;
mod report;

#[global_allocator]
static ALLOCATOR: limits::Allocator = limits::Allocator;

fn main() -> ExitCode {
    report::bugs_in_one_sentence();
    if let Err(error) = limits::prepare() {
        report::error(&error);
        return ExitCode::FAILURE;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report::usage(&error),
    };
    logging::start(cli.verbose, matches!(cli.command, Command::Run(_)));
    // the hook has reported a panic; nothing is used after it
    match catch_unwind(AssertUnwindSafe(|| dispatch(cli.command))) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) if error.downcast_ref::<OutputClosed>().is_some() => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            report::error(&error);
            exit_code(&error)
        }
        Err(_) => ExitCode::from(report::BUG),
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run(args).map(|()| ExitCode::SUCCESS),
        Command::View(ViewArgs { socket, frames, save, json, timeout }) => {
            view(&ViewOptions { socket, frames, save, json, timeout: Duration::from_secs(timeout) })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Control(ControlArgs { ask, socket, json, timeout }) => {
            control(&asked(ask), &ControlOptions { socket, json, timeout: Duration::from_secs(timeout) })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor(DoctorArgs { config, model, socket }) => {
            let problems = doctor(&DoctorOptions { config, model, socket })?;
            Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::ReapSocket { path, dev, ino } => {
            reap_socket_main(&path, dev, ino);
            Ok(ExitCode::SUCCESS)
        }
        Command::TryModel { parent, path } => {
            daemon::try_model_main(parent, &path)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ExecSource { parent, command } => Err(exec_source_main(parent, &command).into()),
        #[cfg(feature = "tools")]
        command => commands::run(command),
    }
}

fn asked(command: ControlCommand) -> Ask {
    match command {
        ControlCommand::Status => Ask::Status,
        ControlCommand::Log { after } => Ask::Log(after),
        ControlCommand::Thresholds { threshold, mask_threshold, overlap_threshold } => {
            let values = [("threshold", threshold), ("mask_threshold", mask_threshold), ("overlap_threshold", overlap_threshold)];
            Ask::Thresholds(values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
        }
        ControlCommand::Reload => Ask::Reload,
        ControlCommand::Model { name } => Ask::Model(name),
    }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    if args.check {
        let found = daemon::check(&read_config(&args)?.model)?;
        return say(found);
    }
    let frames = args.frames;
    daemon::run(Box::new(move || read_config(&args)), frames)?;
    Ok(())
}

/// The file, then single keys, then the arguments of their own.
fn read_config(args: &RunArgs) -> Result<Config, ConfigError> {
    let text = match &args.config {
        Some(path) => files::read_text(path, &bounds::CONFIGURATION).map_err(|source| ConfigError::File { path: path.clone(), source })?,
        None => String::new(),
    };
    let mut config = Config::parse(&text, &args.set)?;
    if let Some(model) = &args.model {
        config.model.path.clone_from(model);
    }
    if let Some(merge) = args.merge {
        config.model.merge = merge;
    }
    config.model.bf16 |= args.bf16;
    config.model.reuse = args.reuse.or(config.model.reuse);
    if let Some(source) = &args.source {
        config.source.uri.clone_from(source);
    }
    Ok(config)
}

/// 2 for wrong usage or configuration, 1 for everything else.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let daemon = error.downcast_ref::<DaemonError>().is_some_and(DaemonError::is_usage);
    let model = error.downcast_ref::<ModelFileError>().is_some_and(ModelFileError::is_usage);
    let tool = error.downcast_ref::<UsageError>().is_some();
    ExitCode::from(if daemon || model || tool { 2 } else { 1 })
}
