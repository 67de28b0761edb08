//! The seqlock under loom: the very functions that writer and readers use, in all interleavings and with all values that the C11 memory
//! model lets a relaxed load return. Run with `make model-check`, which sets `--cfg loom`.
//!
//! One writer publishes into slots that it uses again, two readers copy. No reader may keep a frame that is torn, is of another
//! publication, or is older than one it has seen. The second half shows that the model would notice: with one fence left out, or
//! replaced by the release store that looks as good, loom must find a torn frame.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use eomt_edge_client::seqlock::{Fence, Memory, begin, finish, newest, read};
use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;

/// loom's atomics, with the fences of `LEFT_OUT` (bits of `place`) missing; nothing is missing at `WHOLE`.
struct Model<const LEFT_OUT: u8>;

const WHOLE: u8 = 0;

fn place(fence: Fence) -> u8 {
    match fence {
        Fence::WriterOpens => 1,
        Fence::ReaderFinds => 2,
        Fence::ReaderOpens => 4,
        Fence::ReaderCloses => 8,
    }
}

impl<const LEFT_OUT: u8> Memory for Model<LEFT_OUT> {
    type Word = AtomicU64;

    fn load(word: &AtomicU64) -> u64 {
        word.load(Relaxed)
    }

    fn store(word: &AtomicU64, value: u64) {
        word.store(value, Relaxed);
    }

    fn store_release(word: &AtomicU64, value: u64) {
        word.store(value, Release);
    }

    fn fence(fence_at: Fence) {
        if place(fence_at) & LEFT_OUT != 0 {
            return;
        }
        match fence_at {
            Fence::WriterOpens => fence(Release),
            Fence::ReaderFinds | Fence::ReaderOpens | Fence::ReaderCloses => fence(Acquire),
        }
    }
}

/// The writer that looks right: its odd lock is stored with release, and no fence follows.
struct ReleaseStore;

impl Memory for ReleaseStore {
    type Word = AtomicU64;

    fn load(word: &AtomicU64) -> u64 {
        Model::<WHOLE>::load(word)
    }

    fn store(word: &AtomicU64, value: u64) {
        word.store(value, Release);
    }

    fn store_release(word: &AtomicU64, value: u64) {
        word.store(value, Release);
    }

    fn fence(fence_at: Fence) {
        if fence_at != Fence::WriterOpens {
            Model::<WHOLE>::fence(fence_at);
        }
    }
}

/// A slot of two words; both hold the publication's sequence.
struct Slot {
    lock: AtomicU64,
    data: [AtomicU64; 2],
}

struct Ring {
    latest: AtomicU64,
    slots: Vec<Slot>,
}

impl Ring {
    /// A ring whose slots all hold a frame already, so that every publication uses one again.
    fn full(slots: u64) -> Ring {
        // slot k of n holds the newest of the first n publications with s % n == k
        let slot = |k: u64| {
            let sequence = if k == 0 { slots } else { k };
            Slot { lock: AtomicU64::new(2 * sequence), data: [AtomicU64::new(sequence), AtomicU64::new(sequence)] }
        };
        Ring { latest: AtomicU64::new(slots), slots: (0..slots).map(slot).collect() }
    }

    fn slot(&self, sequence: u64) -> &Slot {
        &self.slots[(sequence % self.slots.len() as u64) as usize]
    }

    fn publish<M: Memory<Word = AtomicU64>>(&self, sequence: u64) {
        let slot = self.slot(sequence);
        begin::<M>(&slot.lock, sequence);
        for word in &slot.data {
            word.store(sequence, Relaxed);
        }
        finish::<M>(&slot.lock, &self.latest, sequence);
    }

    /// One attempt, as `Subscriber::latest` makes it: the sequence of the frame that was kept.
    fn take<M: Memory<Word = AtomicU64>>(&self) -> Option<u64> {
        let sequence = newest::<M>(&self.latest);
        let slot = self.slot(sequence);
        let data = read::<M, _>(&slot.lock, sequence, || [slot.data[0].load(Relaxed), slot.data[1].load(Relaxed)])?;
        assert_eq!(data, [sequence; 2], "a torn frame was kept");
        Some(sequence)
    }
}

/// One writer of `publications` into `slots`, and `readers` of two attempts each.
fn race<M: Memory<Word = AtomicU64> + 'static>(slots: u64, publications: u64, readers: usize) -> impl Fn() + Sync + Send + 'static {
    move || {
        let ring = Arc::new(Ring::full(slots));
        let threads: Vec<_> = (0..readers)
            .map(|_| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || {
                    let mut last = None;
                    for frame in (0..2).filter_map(|_| ring.take::<M>()) {
                        assert!(last <= Some(frame), "{frame} after {last:?}");
                        last = Some(frame);
                    }
                })
            })
            .collect();
        for sequence in slots + 1..=slots + publications {
            ring.publish::<M>(sequence);
        }
        threads.into_iter().for_each(|thread| thread.join().expect("a reader that found nothing wrong"));
    }
}

/// All interleavings, or those with at most so many preemptions.
fn check(preemptions: Option<usize>, race: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.max_branches = 100_000;
    model.check(race);
}

fn finds_a_torn_frame(race: impl Fn() + Sync + Send + 'static) -> bool {
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(Some(3), race)));
    found.is_err()
}

#[test]
fn one_reader_in_all_interleavings() {
    check(None, race::<Model<WHOLE>>(1, 1, 1));
}

#[test]
fn two_readers_of_one_slot() {
    check(Some(2), race::<Model<WHOLE>>(1, 1, 2));
}

#[test]
fn two_readers_of_the_smallest_ring_while_every_slot_is_used_again() {
    check(Some(2), race::<Model<WHOLE>>(2, 2, 2));
}

#[test]
fn without_a_fence_loom_finds_the_tear() {
    assert!(finds_a_torn_frame(race::<Model<1>>(1, 1, 1)), "the writer's fence is needed");
    assert!(finds_a_torn_frame(race::<Model<8>>(1, 1, 1)), "the fence before the second look is needed");
    // one of these two is enough: whoever comes by `newest` has passed a fence already
    assert!(finds_a_torn_frame(race::<Model<6>>(1, 1, 1)), "a fence before the copy is needed");
    assert!(finds_a_torn_frame(race::<ReleaseStore>(1, 1, 1)), "a release store is no replacement for the writer's fence");
}
