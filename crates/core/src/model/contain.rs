//! Panics of the inference engine as errors: a hostile or broken file must not end the program that reads it.
//!
//! Aborts (memory that is not there, a stack that is full) cannot be caught; the daemon tries models in a process of their own first.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ModelError;
use super::bounds::one_line;

static CONTAINED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// Whether a panic of this thread becomes an error, so that a panic hook has nothing to say. `lent`: the thread is one of those that work
/// for others, here or not.
pub fn is_contained(lent: bool) -> bool {
    HERE.get() > 0 || (lent && CONTAINED.load(Ordering::SeqCst) > 0)
}

struct Counted;

impl Counted {
    fn enter() -> Counted {
        CONTAINED.fetch_add(1, Ordering::SeqCst);
        HERE.set(HERE.get() + 1);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        CONTAINED.fetch_sub(1, Ordering::SeqCst);
        HERE.set(HERE.get() - 1);
    }
}

/// What `work` gives; a panic in it is [`ModelError::GaveUp`]. What `work` changes must not be used after one.
pub(super) fn contained<R>(action: &'static str, work: impl FnOnce() -> Result<R, ModelError>) -> Result<R, ModelError> {
    let counted = Counted::enter();
    let result = catch_unwind(AssertUnwindSafe(work));
    drop(counted);
    result.unwrap_or_else(|panic| Err(ModelError::GaveUp { action, reason: words(panic.as_ref()) }))
}

/// A panic's message, fit for a sentence.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let line = text.unwrap_or("no reason given").lines().next().unwrap_or_default();
    one_line(line, 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        assert_eq!(contained("run", || Ok(1)).expect("fine"), 1);
        let error = contained::<()>("run", || panic!("index {} out of bounds", 7)).expect_err("caught").to_string();
        assert!(error.contains("run") && error.contains("index 7 out of bounds"), "{error}");
    }
}
