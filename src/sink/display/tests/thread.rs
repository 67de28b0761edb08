//! The display thread and the frame path: who waits for whom (nobody), what is copied, what a dead panel changes (nothing).

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use eomt_edge_core::pipeline::{NullSink, Publication, Sink};

use super::super::changes::{Area, Grid};
use super::super::panel::Panel;
use super::super::{Display, DisplayError, State};
use super::{config, picture};

/// A panel that reports each transfer and then waits for permission, or fails.
struct Slow {
    sent: Sender<Vec<u8>>,
    permits: Arc<Mutex<Receiver<Result<(), ()>>>>,
}

impl Panel for Slow {
    fn describe(&self) -> String {
        "a test".to_owned()
    }

    fn size(&self) -> (usize, usize) {
        (64, 48)
    }

    fn grid(&self) -> Grid {
        Grid { width: 64, height: 48, cell: 3, tile: (16, 16) }
    }

    fn encode(&self, rgb: &[u8], cells: &mut [u8]) {
        cells.copy_from_slice(rgb);
    }

    fn send(&mut self, cells: &[u8], _: Area) -> Result<(), DisplayError> {
        let _ = self.sent.send(cells.to_vec()); // the test may have ended
        match self.permits.lock().expect("one panel at a time").recv() {
            Ok(Ok(())) => Ok(()),
            _ => Err(DisplayError::Write { device: PathBuf::from("/dev/test"), reason: "no such device".to_owned() }),
        }
    }
}

struct Bench {
    display: Display,
    sent: Receiver<Vec<u8>>,
    permit: Sender<Result<(), ()>>,
}

/// Waiting for so long means that it never comes.
const PATIENCE: Duration = Duration::from_secs(120);

fn bench() -> Bench {
    let ((sent_to, sent), (permit, permits)) = (channel(), channel());
    let permits = Arc::new(Mutex::new(permits));
    let open = move || Ok(Box::new(Slow { sent: sent_to.clone(), permits: Arc::clone(&permits) }) as Box<dyn Panel>);
    let mut display = Display::start_on(&config(&["display.kind=fb", "display.fps=60"]), Box::new(open));
    display.set_labels(&picture().labels);
    Bench { display, sent, permit }
}

/// Publishes one frame through the display's tap, and checks that the sink behind it got all of it.
fn publish(display: &Display, sink: &mut NullSink) {
    let picture = picture();
    let mut fill = |ids: &mut [u16], publication: &mut Publication| {
        ids.copy_from_slice(&picture.ids);
        publication.table.clone_from(&picture.table);
    };
    display.tap(sink).publish(&picture.frame, &mut fill).expect("the null sink takes all");
    assert_eq!((&sink.ids, &sink.last.table), (&picture.ids, &picture.table));
}

/// Publishes until the panel has something to send.
fn publish_until_sent(bench: &Bench, sink: &mut NullSink) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        publish(&bench.display, sink);
        if let Ok(cells) = bench.sent.recv_timeout(Duration::from_millis(5)) {
            return cells;
        }
        assert!(Instant::now() < deadline, "nothing is shown");
    }
}

#[test]
fn a_panel_that_hangs_holds_nobody_up() {
    let (bench, mut sink) = (bench(), NullSink::default());
    let black = bench.sent.recv_timeout(PATIENCE).expect("the panel is cleared first");
    assert!(black.iter().all(|level| *level == 0));
    bench.permit.send(Ok(())).expect("a panel");
    let first = publish_until_sent(&bench, &mut sink);
    assert!(first.iter().any(|level| *level > 0));
    // the panel hangs in the middle of the first picture; no more than one buffer exists, and it is the thread's
    for _ in 0..100 {
        publish(&bench.display, &mut sink);
    }
    assert!(bench.sent.try_recv().is_err(), "nothing else is sent");
    assert!(
        matches!(bench.display.exchange.ready.take(Duration::ZERO), eomt_edge_core::pipeline::Taken::TimedOut),
        "no buffer to copy into"
    );
    // and ends without the panel
    drop(bench.display);
}

#[test]
fn a_panel_that_dies_is_found_again_and_shows_the_newest_state() {
    let (bench, mut sink) = (bench(), NullSink::default());
    bench.sent.recv_timeout(PATIENCE).expect("the panel is cleared first");
    bench.permit.send(Ok(())).expect("a panel");
    publish_until_sent(&bench, &mut sink);
    bench.permit.send(Err(())).expect("a panel");
    bench.display.show(State::NoSignal);
    // while it is away frames pass
    for _ in 0..20 {
        publish(&bench.display, &mut sink);
    }
    bench.display.show(State::NoSignal);
    let again = bench.sent.recv_timeout(PATIENCE).expect("opened again");
    bench.permit.send(Ok(())).expect("a panel");
    let amber = |cells: &[u8]| cells[..3] == [255, 190, 0];
    assert!(amber(&again) || amber(&bench.sent.recv_timeout(PATIENCE).expect("the state")), "no signal");
    let _ = bench.permit.send(Ok(())); // whichever transfer comes last
}

#[test]
fn a_failure_is_not_hidden_by_the_next_frame() {
    let (bench, mut sink) = (bench(), NullSink::default());
    bench.sent.recv_timeout(PATIENCE).expect("the panel is cleared first");
    // the thread waits in its first transfer: both messages are unread when it comes back
    bench.display.show(State::Failure("the model".to_owned()));
    publish(&bench.display, &mut sink);
    bench.permit.send(Ok(())).expect("a panel");
    let seen = bench.sent.recv_timeout(PATIENCE).expect("the failure");
    assert_eq!(seen[..3], [150, 0, 0]);
    bench.permit.send(Ok(())).expect("a panel");
    bench.display.end(State::Stopped);
    let last = bench.sent.recv_timeout(PATIENCE).expect("the last screen");
    assert_eq!(last[..3], [0, 0, 0]);
}

/// Waits until the thread of `display` makes no turns any more, or has ended.
fn turns_at_a_stand(display: &Display) -> Option<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = display.turns();
        std::thread::sleep(Duration::from_millis(1500)); // a thread that waits turns once a second
        if display.turns() == before {
            return before;
        }
        assert!(Instant::now() < deadline, "it goes on and on");
    }
}

#[test]
fn a_panel_that_hangs_shows_in_the_turns_and_can_be_left_behind() {
    let (bench, mut sink) = (bench(), NullSink::default());
    bench.sent.recv_timeout(PATIENCE).expect("the panel is cleared first");
    assert_eq!(turns_at_a_stand(&bench.display), Some(1), "it hangs in its first transfer");
    bench.permit.send(Ok(())).expect("a panel");
    let deadline = Instant::now() + PATIENCE;
    while bench.display.turns() < Some(3) {
        assert!(Instant::now() < deadline, "it waits for messages and turns");
        std::thread::sleep(Duration::from_millis(10));
    }
    publish_until_sent(&bench, &mut sink);
    let exchange = Arc::downgrade(&bench.display.exchange);
    bench.display.abandon();
    assert!(exchange.upgrade().is_some(), "its thread still has its end");
    // its device answers, and it ends
    let _ = bench.permit.send(Ok(()));
    drop(bench.permit);
    while exchange.upgrade().is_some() {
        assert!(Instant::now() < deadline, "it ends as soon as it can");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_panel_that_panics_ends_its_thread_and_nothing_else() {
    let open = || -> Result<Box<dyn Panel>, DisplayError> { panic!("this panel panics on purpose") };
    let display = Display::start_on(&config(&["display.kind=fb"]), Box::new(open));
    let deadline = Instant::now() + PATIENCE;
    while display.turns().is_some() {
        assert!(Instant::now() < deadline, "it has panicked");
        std::thread::sleep(Duration::from_millis(10));
    }
    publish(&display, &mut NullSink::default());
}
