//! The wake-up: from a publication to the readers that wait for it.
//!
//! ```text
//! writer:  latest = s;  ring the publication's bell
//! server:  wait for the publication's bell;  silence it;  ring every reader's bell
//! reader:  wait for its bell;  silence it;  look at latest;  nothing new: wait again
//! ```
//! Whoever is woken silences first and looks second, so what happens in between rings again, and no wake-up is lost.
//! `crates/client/tests/wake_model.rs` tries every order of these steps with [`pass_on`] itself; hence nothing else is needed here.

/// What wakes its holder: it stays loud until its holder silences it.
pub(super) trait Bell {
    /// Never waits.
    fn ring(&self);
}

/// The server's step once a publication's bell has rung.
pub(super) fn pass_on<'a, B: Bell + 'a>(silence: impl FnOnce(), readers: impl Iterator<Item = &'a B>) {
    silence();
    readers.for_each(B::ring);
}
