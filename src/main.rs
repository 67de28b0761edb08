//! `eomt-edge`: arguments to command to exit code.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use eomt_edge::cli::{Cli, Command, DoctorArgs, RunArgs, ViewArgs};
use eomt_edge::config::{Config, ConfigError};
use eomt_edge::daemon::{self, DaemonError};
use eomt_edge::doctor::{DoctorOptions, doctor};
use eomt_edge::sink::ring::reap_socket_main;
use eomt_edge::source::exec_source_main;
use eomt_edge::view::{ViewOptions, view};
use eomt_edge_host::model_file::ModelFileError;
use eomt_edge_host::output::{OutputClosed, UsageError};

#[cfg(feature = "tools")]
mod commands;
mod limits;
mod logging;

#[global_allocator]
static ALLOCATOR: limits::Allocator = limits::Allocator;

fn main() -> ExitCode {
    if let Err(error) = limits::prepare() {
        report(&error);
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    logging::start(cli.verbose, matches!(cli.command, Command::Run(_)));
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) if error.downcast_ref::<OutputClosed>().is_some() => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            exit_code(&error)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run(args).map(|()| ExitCode::SUCCESS),
        Command::View(ViewArgs { socket, frames, save, json, timeout }) => {
            view(&ViewOptions { socket, frames, save, json, timeout: Duration::from_secs(timeout) })?;
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

fn run(args: RunArgs) -> anyhow::Result<()> {
    if args.check {
        let found = daemon::check(&read_config(&args)?.model)?;
        writeln!(std::io::stdout(), "{found}")?;
        return Ok(());
    }
    let frames = args.frames;
    daemon::run(Box::new(move || read_config(&args)), frames)?;
    Ok(())
}

/// The file, then single keys, then the arguments of their own.
fn read_config(args: &RunArgs) -> Result<Config, ConfigError> {
    let text = match &args.config {
        Some(path) => std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.clone(), source })?,
        None => String::new(),
    };
    let mut config = Config::parse(&text, &args.set)?;
    if let Some(model) = &args.model {
        config.model.path.clone_from(model);
    }
    if let Some(source) = &args.source {
        config.source.uri.clone_from(source);
    }
    Ok(config)
}

/// One sentence on standard error: the error and its causes.
fn report(error: &anyhow::Error) {
    let mut sentence = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // an error whose text already contains its source says it once
        if sentence.ends_with(&cause) {
            continue;
        }
        if !sentence.is_empty() {
            sentence.push_str(": ");
        }
        sentence.push_str(cause.trim_end());
    }
    let priority = if logging::under_journald() { "<3>" } else { "" };
    // nowhere to say that standard error is full or closed
    let _ = writeln!(std::io::stderr(), "{priority}eomt-edge: {}", sentence.replace('\n', " "));
}

/// 2 for wrong usage or configuration, 1 for everything else.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let daemon = error.downcast_ref::<DaemonError>().is_some_and(DaemonError::is_usage);
    let model = error.downcast_ref::<ModelFileError>().is_some_and(ModelFileError::is_usage);
    let tool = error.downcast_ref::<UsageError>().is_some();
    ExitCode::from(if daemon || model || tool { 2 } else { 1 })
}
