//! Opening what may not be there yet, again and again: pauses that grow, and one log line per change of state.

pub(super) const PAUSE_MIN_NS: u64 = 100_000_000;
pub(in crate::source) const PAUSE_MAX_NS: u64 = 2_000_000_000;

/// What a source that waits for another process remembers.
#[derive(Debug)]
pub(in crate::source) struct Attempts {
    /// The URI that the user gave.
    name: String,
    /// Not before this.
    pub retry_at_ns: u64,
    pub(super) pause_ns: u64,
    /// The problem that was last logged, until frames come again.
    problem: Option<String>,
}

impl Attempts {
    pub fn new(name: String) -> Attempts {
        Attempts { name, retry_at_ns: 0, pause_ns: PAUSE_MIN_NS, problem: None }
    }

    /// One line for as long as the reason stays the same.
    pub fn complain(&mut self, reason: String) {
        if self.problem.as_ref() != Some(&reason) {
            log::warn!("{}: {reason}", self.name);
            self.problem = Some(reason);
        }
    }

    /// A frame has come: the next problem is a new one.
    pub fn came(&mut self) {
        if self.problem.take().is_some() {
            log::info!("{}: frames come", self.name);
        }
    }

    /// The next attempt comes after a pause that grows.
    pub fn pause(&mut self, now_ns: u64) {
        self.retry_at_ns = now_ns + self.pause_ns;
        self.pause_ns = (2 * self.pause_ns).min(PAUSE_MAX_NS);
    }

    /// All is well for long enough that the next pause is a short one.
    pub fn start_over(&mut self) {
        self.pause_ns = PAUSE_MIN_NS;
    }
}

/// With the last words of a command, if it had any.
pub(in crate::source) fn told(reason: &str, words: &str) -> String {
    if words.is_empty() { reason.to_owned() } else { format!("{reason} (it said: {words})") }
}
