//! The loop against a scripted driver: what the kernel's documentation says may come back.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::super::sys::DriverFormat;
use super::*;

/// Each call of `dequeue` takes the next answer; EAGAIN when there is none. Counts who owns which buffer.
#[derive(Default)]
struct Script {
    ready: VecDeque<PollFlags>,
    answers: VecDeque<Result<Dequeued, Errno>>,
    ours: Vec<u32>,
    requeued: Vec<u32>,
    event: Option<bool>,
    short: bool,
}

impl Queue for Script {
    fn count(&self) -> usize {
        6
    }

    fn wait(&self, _: Duration) -> io::Result<PollFlags> {
        Ok(self.ready.front().copied().unwrap_or(PollFlags::empty()))
    }

    fn dequeue(&mut self) -> io::Result<Dequeued> {
        let buffer = self.answers.pop_front().unwrap_or(Err(Errno::AGAIN))?;
        assert!(!self.ours.contains(&buffer.index), "the script gives a buffer twice");
        self.ours.push(buffer.index);
        Ok(buffer)
    }

    fn requeue(&mut self, index: u32) -> io::Result<()> {
        let at = self.ours.iter().position(|ours| *ours == index).expect("only a dequeued buffer may be queued");
        self.ours.remove(at);
        self.requeued.push(index);
        Ok(())
    }

    fn source_changed(&mut self) -> io::Result<bool> {
        Ok(self.event.take().unwrap_or(false))
    }

    fn copy(&self, buffer: &Dequeued, _: &Layout, frame: &mut Vec<u8>) -> Result<(), ShortFrame> {
        assert!(self.ours.contains(&buffer.index), "only a dequeued buffer may be read");
        *frame = vec![buffer.index as u8];
        if self.short { Err(ShortFrame { found: 1, needed: 2 }) } else { Ok(()) }
    }
}

fn buffer(index: u32, sequence: u32) -> Result<Dequeued, Errno> {
    Ok(Dequeued { index, sequence, captured_ns: Some(u64::from(sequence) * 10), corrupted: false, used: [(0, 0); 3] })
}

fn corrupted(index: u32, sequence: u32) -> Result<Dequeued, Errno> {
    buffer(index, sequence).map(|buffer| Dequeued { corrupted: true, ..buffer })
}

fn layout() -> Layout {
    let driver = DriverFormat {
        fourcc: *b"GREY",
        width: 1,
        height: 1,
        planes: vec![(1, 1)],
        field: 1,
        colorspace: 0,
        ycbcr_encoding: 0,
        quantization: 0,
    };
    Layout::of(&driver).expect("a format of ours")
}

/// One turn; afterwards every buffer must be the driver's again.
fn turn(script: &mut Script, last: &mut Option<u32>, losses: &mut Losses) -> (io::Result<Outcome>, Vec<u8>) {
    let mut frame = Vec::new();
    let outcome = take_newest(script, &layout(), Duration::ZERO, last, losses, &mut frame);
    if outcome.is_ok() {
        assert!(script.ours.is_empty(), "buffers {:?} were not given back", script.ours);
    }
    (outcome, frame)
}

#[test]
fn the_newest_good_frame_wins_and_every_buffer_goes_back() {
    let mut script = Script { ready: [PollFlags::IN].into(), ..Script::default() };
    script.answers = [buffer(0, 5), buffer(1, 6), corrupted(2, 7)].into();
    let (mut last, mut losses) = (Some(2), Losses::default());
    let (outcome, frame) = turn(&mut script, &mut last, &mut losses);
    assert_eq!(outcome.unwrap(), Outcome::Frame { sequence: 6, captured_ns: Some(60) });
    assert_eq!(frame, [1]);
    assert_eq!(losses, Losses { missed: 2, stale: 1, broken: 1 });
    assert_eq!((last, script.requeued.as_slice()), (Some(7), [0, 2, 1].as_slice()));
}

#[test]
fn all_that_is_ready_is_taken_also_when_the_driver_gave_more_buffers_than_asked_for() {
    let mut script = Script { ready: [PollFlags::IN].into(), ..Script::default() };
    script.answers = (0..6).map(|index| buffer(index, index)).collect();
    let mut losses = Losses::default();
    let (outcome, frame) = turn(&mut script, &mut None, &mut losses);
    assert!(matches!(outcome.unwrap(), Outcome::Frame { sequence: 5, .. }));
    assert_eq!((frame, losses.stale), (vec![5], 5));
}

#[test]
fn gaps_are_counted_and_a_restarted_counter_is_none() {
    for (before, now, missed) in
        [(None, 100, 0), (Some(4), 5, 0), (Some(4), 8, 3), (Some(900), 0, 0), (Some(u32::MAX), 0, 0), (Some(u32::MAX), 1, 1)]
    {
        let mut script = Script { ready: [PollFlags::IN].into(), answers: [buffer(0, now)].into(), ..Script::default() };
        let (mut last, mut losses) = (before, Losses::default());
        turn(&mut script, &mut last, &mut losses).0.unwrap();
        assert_eq!(losses.missed, missed, "{before:?} then {now}");
    }
}

#[test]
fn nothing_false_alarms_and_bad_frames_are_no_end() {
    let cases = [
        (PollFlags::empty(), vec![], false),
        (PollFlags::IN, vec![Err(Errno::AGAIN)], false),
        (PollFlags::IN, vec![corrupted(3, 1)], false),
        (PollFlags::IN | PollFlags::ERR, vec![corrupted(3, 1)], false),
        (PollFlags::IN, vec![buffer(0, 1)], true),
        (PollFlags::PRI, vec![], false),
    ];
    for (ready, answers, short) in cases {
        let count = answers.len();
        let mut script = Script { ready: [ready].into(), answers: answers.into(), short, ..Script::default() };
        let outcome = turn(&mut script, &mut None, &mut Losses::default()).0;
        assert_eq!(outcome.unwrap(), Outcome::Nothing, "{ready:?} with {count} answers");
    }
}

#[test]
fn a_frame_that_is_ready_counts_even_beside_an_error_flag() {
    let ready = PollFlags::IN | PollFlags::ERR | PollFlags::HUP;
    let mut script = Script { ready: [ready].into(), answers: [buffer(0, 1)].into(), ..Script::default() };
    assert!(matches!(turn(&mut script, &mut None, &mut Losses::default()).0.unwrap(), Outcome::Frame { .. }));
}

#[test]
fn what_ends_a_stream_is_said_with_its_reason() {
    for errno in [Errno::NODEV, Errno::IO, Errno::INVAL, Errno::PIPE] {
        let mut script = Script { ready: [PollFlags::IN].into(), answers: [buffer(0, 1), Err(errno)].into(), ..Script::default() };
        let error = turn(&mut script, &mut None, &mut Losses::default()).0.unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(errno));
    }
    // an error without a buffer would make `poll` return at once for ever
    for flag in [PollFlags::ERR, PollFlags::HUP, PollFlags::NVAL] {
        let mut script = Script { ready: [flag].into(), ..Script::default() };
        assert!(turn(&mut script, &mut None, &mut Losses::default()).0.is_err(), "{flag:?}");
    }
}

#[test]
fn a_changed_source_is_negotiated_anew() {
    let mut script = Script { ready: [PollFlags::PRI | PollFlags::IN].into(), event: Some(true), ..Script::default() };
    script.answers = [buffer(0, 1)].into();
    assert_eq!(turn(&mut script, &mut None, &mut Losses::default()).0.unwrap(), Outcome::Changed);
    assert!(script.requeued.is_empty(), "it was not even taken");
}
