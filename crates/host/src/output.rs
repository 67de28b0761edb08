//! Standard output of commands, and the errors that decide the exit code.

/// The user's words are at fault: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Whoever read standard output has stopped: no failure, but the end.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct OutputClosed;

/// Writes a line to standard output.
///
/// # Errors
/// [`OutputClosed`] when nobody reads it any more (EPIPE), else the error of `write(2)`.
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
