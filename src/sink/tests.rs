//! The ring's sink: what it adds to what the pipeline publishes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eomt_edge_client::{MaskFrame, Subscriber};

use super::*;

/// A clock that is set by hand.
#[derive(Debug, Clone)]
struct Dial(Arc<AtomicU64>);

impl Clock for Dial {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn newest(socket: &Path) -> MaskFrame {
    let mut frame = MaskFrame::default();
    assert!(Subscriber::connect(socket).expect("a server").latest(&mut frame).expect("a ring"));
    frame
}

/// Publishes an empty frame that was taken at `captured_ns`.
fn publish(sink: &mut RingSink, captured_ns: u64) {
    let mut frame = Frame::rgb(2, 2, vec![0; 12]);
    frame.captured_ns = captured_ns;
    let fill = &mut |ids: &mut [u16], publication: &mut Publication| {
        ids.fill(NO_SEGMENT);
        publication.report = FrameReport { captured_ns, ..FrameReport::default() };
    };
    sink.publish(&frame, fill).expect("it fits");
}

#[test]
fn a_picture_older_than_the_limit_is_stale() {
    let directory = std::env::temp_dir().join(format!("eomt-sink-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the test");
    let socket = directory.join("masks.sock");
    let clock = Dial(Arc::new(AtomicU64::new(0)));
    let config = RingConfig { max_width: 2, max_height: 2, ..RingConfig::default() };
    let server = ServerConfig::new(&socket);
    let mut sink = RingSink::start(config, r#"{"labels": []}"#.to_owned(), server, Box::new(clock.clone())).expect("a ring");
    sink.set_stale_after(Duration::from_nanos(500));
    clock.0.store(10_000, Ordering::SeqCst);
    sink.publish_no_signal(0).expect("it fits");
    assert_eq!((newest(&socket).stale(), newest(&socket).source_id()), (false, 0), "there is no picture to be old");

    sink.set_source_id(77);
    for (captured_ns, stale) in [(9_500, false), (9_499, true), (10_000, false), (10_001, false)] {
        publish(&mut sink, captured_ns);
        let frame = newest(&socket);
        assert_eq!((frame.stale(), frame.source_id(), frame.no_signal()), (stale, 77, false), "taken at {captured_ns}");
        assert_eq!((frame.info.captured_ns, frame.info.published_ns), (captured_ns, 10_000));
    }
    clock.0.store(10_502, Ordering::SeqCst);
    sink.publish_no_signal(0).expect("it fits");
    let silent = newest(&socket);
    assert_eq!((silent.stale(), silent.no_signal(), silent.source_id(), silent.info.captured_ns), (true, true, 77, 10_001));

    // a new limit and a new source need no new ring
    sink.set_stale_after(Duration::ZERO);
    sink.set_source_id(78);
    publish(&mut sink, 1);
    let frame = newest(&socket);
    assert_eq!((frame.stale(), frame.source_id(), frame.sequence()), (false, 78, sink.published()));
    sink.stop();
    let _ = std::fs::remove_dir_all(directory);
}
