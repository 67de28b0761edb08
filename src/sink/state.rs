//! The states of the daemon that displays show.

/// A state of the daemon, for a person in front of the robot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The model is being loaded.
    Starting,
    /// No frames come.
    NoSignal,
    /// The model cannot be used, and why.
    ModelError(String),
    /// Something else ended the daemon, or a reload was refused.
    Failure(String),
    /// The daemon has ended as it should.
    Stopped,
}
