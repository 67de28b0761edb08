//! Readers that tamper with their event descriptor, in every way that a descriptor offers, while an honest one gets its frames.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use eomt_edge_client::Subscriber;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdTimerFlags, timerfd_settime};

use super::hostile::{RawReader, assert_alive, dropped, raw_reader};
use super::support::{PATIENCE, Scratch, until, writer};

fn is_loud(reader: &RawReader) -> bool {
    poll(&mut [PollFd::new(&reader.event, PollFlags::IN)], Some(&Timespec::default())).expect("our own descriptor") > 0
}

fn set_nonblocking(reader: &RawReader, on: bool) {
    let flags = fcntl_getfl(&reader.event).expect("our own descriptor");
    let flags = if on { flags | OFlags::NONBLOCK } else { flags - OFlags::NONBLOCK };
    fcntl_setfl(&reader.event, flags).expect("our own descriptor");
}

/// One round of everything that a reader may do to its descriptor. What the kernel refuses is refused.
fn tamper(reader: &RawReader, round: u64) {
    set_nonblocking(reader, true);
    let _ = rustix::io::read(&reader.event, &mut [0u8; 8]);
    let _ = rustix::io::write(&reader.event, &(u64::MAX - 1).to_ne_bytes());
    set_nonblocking(reader, false);
    // For these microseconds the descriptor is blocking and, if it can be filled, full.
    let _ = rustix::pipe::fcntl_setpipe_size(&reader.event, if round.is_multiple_of(2) { 4096 } else { 1 << 20 });
    let path = format!("/proc/self/fd/{}", reader.event.as_raw_fd());
    if let Ok(again) = rustix::fs::open(path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        while rustix::io::write(&again, &[0u8; 4096]).is_ok() {}
    }
    let far = Timespec { tv_sec: 1 << 40, tv_nsec: 0 };
    let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 1 }, it_value: far };
    let _ = timerfd_settime(&reader.event, TimerfdTimerFlags::empty(), &spec);
}

#[test]
fn readers_that_tamper_with_their_descriptor_delay_nobody() {
    let scratch = Scratch::new();
    let _writer = writer(&scratch.socket(), &[]);
    let mut honest = Subscriber::connect(scratch.socket()).expect("a live writer");
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let crowd: Vec<RawReader> = (0..8).map(|_| raw_reader(&scratch.socket())).collect();
                while !stop.load(Ordering::Relaxed) {
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    crowd.iter().for_each(|reader| tamper(reader, round));
                }
                assert!(crowd.iter().all(|reader| !dropped(reader)), "what a reader does to its own descriptor is its own affair");
            });
        }
        until(PATIENCE, "some thousand rounds", || {
            assert_alive(&mut honest);
            rounds.load(Ordering::Relaxed) > 3000
        });
        stop.store(true, Ordering::Relaxed);
    });
    // And new ones are admitted.
    assert_alive(&mut Subscriber::connect(scratch.socket()).expect("a server that answers"));
}

#[test]
fn a_reader_may_close_its_descriptor_or_never_read_it() {
    let scratch = Scratch::new();
    let _writer = writer(&scratch.socket(), &["--fps", "500"]);
    let mut honest = Subscriber::connect(scratch.socket()).expect("a live writer");
    let (lazy, RawReader { socket, event, .. }) = (raw_reader(&scratch.socket()), raw_reader(&scratch.socket()));
    drop(event);
    assert_alive(&mut honest);
    assert!(!dropped(&lazy), "to be behind is no crime");
    assert_eq!(rustix::net::recv(&socket, &mut [0u8; 1], rustix::net::RecvFlags::DONTWAIT).err(), Some(Errno::AGAIN), "nor this");
}

/// What clients of ABI 1 do: they wait for IN, read 8 bytes, and find nothing more until the next frame.
#[test]
fn a_wake_up_is_one_read_of_eight_bytes() {
    let scratch = Scratch::new();
    let process = writer(&scratch.socket(), &["--fps", "20"]);
    let reader = raw_reader(&scratch.socket());
    for _ in 0..5 {
        until(PATIENCE, "a wake-up", || is_loud(&reader));
        let mut count = [0u8; 8];
        assert_eq!(rustix::io::read(&reader.event, &mut count), Ok(8));
        assert_ne!(u64::from_le_bytes(count), 0);
    }
    process.signal(rustix::process::Signal::KILL);
    until(PATIENCE, "the end", || dropped(&reader));
    // A client that waits for this descriptor too does not spin at the end.
    let _ = rustix::io::read(&reader.event, &mut [0u8; 8]);
    assert!(!is_loud(&reader));
    assert_eq!(rustix::io::read(&reader.event, &mut [0u8; 8]), Err(Errno::AGAIN));
}
