//! The seqlock's protocol: every load, store and fence by which one writer hands slots to readers that it never waits for.
//!
//! After Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012, figure 6. Publication `s`:
//! ```text
//! writer   begin    lock = 2s - 1 (relaxed), release fence    no byte of the new frame becomes visible before the odd lock
//!          (fill)   the data, relaxed or plain                there is one writer; readers throw away what they tear
//!          finish   lock = 2s (release), latest = s (release) no byte of the new frame becomes visible after the even lock
//! reader   newest   latest (relaxed), acquire fence           the slot of that publication is visible
//!          read  1. lock == 2s (relaxed), acquire fence       pairs with `finish`: all of the data is visible
//!                2. the data, relaxed                         tearing is expected, and found in step 3
//!                3. acquire fence, lock == 2s (relaxed)       pairs with `begin`: had step 2 seen a byte of a later writing, the
//!                                                             odd lock in front of it must be seen here
//! ```
//! Two changes look harmless and tear frames: a release *store* of the odd lock instead of the fence (it orders what comes before it,
//! and the data come after), and step 3 without its fence (the core may satisfy its load before those of step 2).
//! `tests/seqlock_model.rs` has [loom](https://docs.rs/loom) try all interleavings of these very functions, and shows that it finds the
//! tear when a fence is missing. All loads are relaxed with separate fences, since Rust allows only relaxed atomic loads on memory that
//! is mapped read-only. On aarch64 the reader's fences are `dmb ishld`, the writer's is `dmb ish` and its release stores are
//! `stlr`; on x86-64 only the compiler needs to be told.
//!
//! ```
//! use eomt_edge_client::seqlock::{Hardware, begin, finish, newest, read};
//! use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
//! let (lock, latest, data) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
//! begin::<Hardware>(&lock, 1);
//! data.store(42, Relaxed);
//! finish::<Hardware>(&lock, &latest, 1);
//! assert_eq!(newest::<Hardware>(&latest), 1);
//! assert_eq!(read::<Hardware, _>(&lock, 1, || data.load(Relaxed)), Some(42));
//! assert_eq!(read::<Hardware, _>(&lock, 2, || data.load(Relaxed)), None); // not published yet
//! ```
//! Invariants: a lock is `2s - 1` while publication `s` is written and `2s` once it may be read. Refuses: a second writer.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Where a fence of the protocol stands. One [`Memory`] may leave one out, to show that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Release, after the odd lock.
    WriterOpens,
    /// Acquire, after the newest sequence was loaded.
    ReaderFinds,
    /// Acquire, after the first look at the lock.
    ReaderOpens,
    /// Acquire, before the second look at the lock.
    ReaderCloses,
}

/// The atomic operations that the protocol needs: the machine's, or those of a model checker.
pub trait Memory {
    /// An aligned 64-bit word that several threads or processes share.
    type Word;
    /// A relaxed load.
    fn load(word: &Self::Word) -> u64;
    /// A relaxed store.
    fn store(word: &Self::Word, value: u64);
    /// A release store.
    fn store_release(word: &Self::Word, value: u64);
    /// The fence that belongs at this place.
    fn fence(place: Fence);
}

/// The machine's own atomics.
#[derive(Debug, Clone, Copy)]
pub struct Hardware;

impl Memory for Hardware {
    type Word = AtomicU64;

    #[inline(always)]
    fn load(word: &AtomicU64) -> u64 {
        word.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn store(word: &AtomicU64, value: u64) {
        word.store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn store_release(word: &AtomicU64, value: u64) {
        word.store(value, Ordering::Release);
    }

    #[inline(always)]
    fn fence(place: Fence) {
        match place {
            Fence::WriterOpens => fence(Ordering::Release),
            Fence::ReaderFinds | Fence::ReaderOpens | Fence::ReaderCloses => fence(Ordering::Acquire),
        }
    }
}

/// The writer takes a slot for publication `sequence` (>= 1). From here on no reader keeps what it copies from the slot.
#[inline(always)]
pub fn begin<M: Memory>(lock: &M::Word, sequence: u64) {
    M::store(lock, 2 * sequence - 1);
    M::fence(Fence::WriterOpens);
}

/// The writer publishes the slot that it took with [`begin`], as the newest.
#[inline(always)]
pub fn finish<M: Memory>(lock: &M::Word, latest: &M::Word, sequence: u64) {
    M::store_release(lock, 2 * sequence);
    M::store_release(latest, sequence);
}

/// The newest publication, 0 = none.
#[inline(always)]
pub fn newest<M: Memory>(latest: &M::Word) -> u64 {
    let sequence = M::load(latest);
    M::fence(Fence::ReaderFinds);
    sequence
}

/// What `copy` made of publication `sequence` (>= 1), which must load the slot's words relaxed. `None` when the slot holds another
/// publication or came to be overwritten meanwhile. What `copy` sees before that is noticed may be torn: it must not trust it.
#[inline(always)]
pub fn read<M: Memory, T>(lock: &M::Word, sequence: u64, copy: impl FnOnce() -> T) -> Option<T> {
    // a hostile ring may claim any sequence
    let stable = sequence.wrapping_mul(2);
    if M::load(lock) != stable {
        return None;
    }
    M::fence(Fence::ReaderOpens);
    let copied = copy();
    M::fence(Fence::ReaderCloses);
    (M::load(lock) == stable).then_some(copied)
}
