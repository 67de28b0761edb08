//! `pipe:` and `exec:`: entries of the table of sources.

use std::path::PathBuf;

use eomt_edge_core::pipeline::{Source, SourceError};

use super::{PipeOptions, PipeSource};
use crate::source::kind::{SourceKind, SourceSpec};
use crate::source::options::SourceOptions;

/// Standard input, or a FIFO.
pub const PIPE: SourceKind = SourceKind {
    scheme: "pipe",
    usage: &["pipe:-", "pipe:FIFO"],
    summary: "raw frames from standard input, or from a FIFO",
    uses_view: true,
    uses_source_size: true,
    parse: |rest| match rest {
        Some("-") => Ok(Box::new(Pipe { path: None })),
        Some(path) if !path.is_empty() => Ok(Box::new(Pipe { path: Some(path.into()) })),
        _ => Err(String::new()),
    },
};

/// A command that is started here.
pub const EXEC: SourceKind = SourceKind {
    scheme: "exec",
    usage: &["exec:COMMAND"],
    summary: "raw frames from a shell command that is started here",
    uses_view: true,
    uses_source_size: true,
    parse: |rest| match rest.map(str::trim) {
        Some(command) if !command.is_empty() => Ok(Box::new(Exec { command: command.to_owned() })),
        _ => Err(String::new()),
    },
};

#[derive(Debug)]
struct Pipe {
    /// `None` = standard input.
    path: Option<PathBuf>,
}

#[derive(Debug)]
struct Exec {
    command: String,
}

impl SourceSpec for Pipe {
    fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(match &self.path {
            None => PipeSource::standard_input(pipe_options(options))?,
            Some(path) => PipeSource::fifo(path.clone(), pipe_options(options))?,
        }))
    }
}

impl SourceSpec for Exec {
    fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(PipeSource::command(self.command.clone(), options.launcher.clone(), pipe_options(options))?))
    }
}

fn pipe_options(options: &SourceOptions) -> PipeOptions {
    let SourceOptions { size, format, colour, stride, end, .. } = *options;
    PipeOptions { size, format, colour, stride, end, view: options.camera.view }
}
