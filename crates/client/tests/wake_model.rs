//! The daemon's wake-up (`src/sink/ring/wake.rs`) under loom: every order of the steps of one writer, the server and two readers. Run with
//! `make model-check`. It stands here because the daemon's own crate would have to be compiled anew for it, with all that it needs.
//!
//! The server's step is [`pass_on`] itself. The writer's two lines (`SlotWriter::finish`) and the reader's three (`Subscriber::next_into`)
//! are written out here, with the memory orders that they have there. Nobody waits in the model: when all is quiet, whoever lacks the last frame must have a loud bell, which ends any wait.
//! The tests at the end break the protocol on purpose and expect it.
#![cfg(loom)]

#[path = "../../../src/sink/ring/wake.rs"]
mod wake;

use std::panic::catch_unwind;
// loom's own would make every clone and drop of the test one more step to order.
use std::sync::Arc;

use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use loom::thread;

use wake::{Bell, pass_on};

/// An eventfd or a timerfd. What the kernel does to its flag under a lock is one step to all others: an exchange.
struct Event(AtomicBool);

impl Bell for Event {
    fn ring(&self) {
        self.0.swap(true, Ordering::AcqRel);
    }
}

impl Event {
    fn silent() -> Event {
        Event(AtomicBool::new(false))
    }

    /// `read`.
    fn silence(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }

    /// `poll`.
    fn is_loud(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

struct World {
    latest: AtomicU64,
    published: Event,
    bells: Vec<Event>,
}

/// Who does which step in which order.
#[derive(Clone, Copy)]
struct Protocol {
    publish: fn(&World, u64),
    pass_on: fn(&World),
    /// Takes its bell and returns the newest sequence.
    look: fn(&World, &Event) -> u64,
}

const AS_IT_IS: Protocol = Protocol {
    publish: |world, sequence| {
        world.latest.store(sequence, Ordering::Release);
        world.published.ring();
    },
    pass_on: |world| pass_on(|| world.published.silence(), world.bells.iter()),
    look: |world, bell| {
        bell.silence();
        newest(world)
    },
};

fn newest(world: &World) -> u64 {
    let latest = world.latest.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    latest
}

/// Every order of `frames` publications, as many steps of the server, and `readers` that look `looks` times each. Server and readers
/// may act before they are woken, as any of them may.
fn try_all(protocol: Protocol, frames: u64, readers: usize, looks: usize) {
    Builder::new().check(move || {
        let bells = (0..readers).map(|_| Event::silent()).collect();
        let world = Arc::new(World { latest: AtomicU64::new(0), published: Event::silent(), bells });
        let readers: Vec<_> = (0..readers)
            .map(|number| {
                let world = Arc::clone(&world);
                thread::spawn(move || (0..looks).fold(0, |_, _| (protocol.look)(&world, &world.bells[number])))
            })
            .collect();
        let server = {
            let world = Arc::clone(&world);
            thread::spawn(move || (0..frames).for_each(|_| (protocol.pass_on)(&world)))
        };
        (1..=frames).for_each(|sequence| (protocol.publish)(&world, sequence));
        server.join().unwrap();
        let seen: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        // A bell that is still loud wakes the server once more.
        if world.published.is_loud() {
            (protocol.pass_on)(&world);
        }
        for (seen, bell) in seen.into_iter().zip(&world.bells) {
            assert!(seen == frames || bell.is_loud(), "a reader saw {seen} of {frames} and is not woken again");
        }
    });
}

#[test]
fn one_publication_reaches_two_readers_in_every_order() {
    try_all(AS_IT_IS, 1, 2, 1);
}

#[test]
fn the_last_of_two_publications_reaches_a_reader_in_every_order() {
    try_all(AS_IT_IS, 2, 1, 2);
}

#[test]
fn a_server_that_silences_after_ringing_loses_a_wake_up() {
    let wrong = |world: &World| {
        pass_on(|| {}, world.bells.iter());
        world.published.silence();
    };
    assert!(catch_unwind(|| try_all(Protocol { pass_on: wrong, ..AS_IT_IS }, 2, 1, 1)).is_err());
}

#[test]
fn a_reader_that_looks_before_silencing_loses_a_wake_up() {
    let wrong = |world: &World, bell: &Event| {
        let latest = newest(world);
        bell.silence();
        latest
    };
    assert!(catch_unwind(|| try_all(Protocol { look: wrong, ..AS_IT_IS }, 1, 1, 1)).is_err());
}

#[test]
fn a_writer_that_rings_before_it_stores_loses_a_wake_up() {
    let wrong = |world: &World, sequence: u64| {
        world.published.ring();
        world.latest.store(sequence, Ordering::Release);
    };
    assert!(catch_unwind(|| try_all(Protocol { publish: wrong, ..AS_IT_IS }, 1, 1, 1)).is_err());
}
