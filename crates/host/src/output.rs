//! Standard output of commands, and the errors that decide the exit code.

/// Wrong usage: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The reader of standard output is gone: the end, but no failure.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct OutputClosed;

/// Writes a line to standard output.
///
/// # Errors
/// [`OutputClosed`] when its reader is gone (EPIPE), else the error of `write(2)`.
pub fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        Err(error) => Err(anyhow::Error::new(error).context("standard output cannot be written")),
    }
}

/// Ends a command with a [`UsageError`].
///
/// # Errors
/// Always.
pub fn usage<T>(sentence: impl Into<String>) -> anyhow::Result<T> {
    Err(UsageError(sentence.into()).into())
}
