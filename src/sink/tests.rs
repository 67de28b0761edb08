//! The ring's sink: what it adds to what the pipeline publishes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eomt_edge_client::{Drops, FrameFormat, MaskFrame, Subscriber};
use eomt_edge_core::data::{Colour, Matrix, PixelFormat};

use super::*;
use crate::picture::as_frame;

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
    sink.publish_no_signal(Unpublished::default()).expect("it fits");
    assert_eq!((newest(&socket).stale(), newest(&socket).source_id()), (false, 0), "there is no picture to be old");

    sink.set_source_id(77);
    for (captured_ns, stale) in [(9_500, false), (9_499, true), (10_000, false), (10_001, false)] {
        publish(&mut sink, captured_ns);
        let frame = newest(&socket);
        assert_eq!((frame.stale(), frame.source_id(), frame.no_signal()), (stale, 77, false), "taken at {captured_ns}");
        assert_eq!((frame.info.captured_ns, frame.info.published_ns), (captured_ns, 10_000));
    }
    clock.0.store(10_502, Ordering::SeqCst);
    sink.publish_no_signal(Unpublished::default()).expect("it fits");
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

#[test]
fn the_camera_frame_goes_out_as_it_came_where_it_fits() {
    let directory = std::env::temp_dir().join(format!("eomt-sink-formats-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the test");
    let socket = directory.join("masks.sock");
    let config = RingConfig { max_width: 8, max_height: 8, include_frame: true, source_format: true, ..RingConfig::default() };
    let clock = Dial(Arc::new(AtomicU64::new(10_000)));
    let mut sink = RingSink::start(config, r#"{"labels": []}"#.to_owned(), ServerConfig::new(&socket), Box::new(clock)).expect("a ring");
    let mut pass = |frame: Frame| {
        let unpublished = Unpublished { busy: 1, source: 2, corrupt: 4, failed: 8 };
        let fill = &mut |ids: &mut [u16], publication: &mut Publication| {
            ids.fill(NO_SEGMENT);
            publication.report = FrameReport { stamp_ns: frame.stamp_ns, unpublished, ..FrameReport::default() };
        };
        sink.publish(&frame, fill).expect("it fits");
        newest(&socket)
    };
    let bytes = |count: usize| (0..count).map(|at| (at * 37 % 251) as u8).collect::<Vec<u8>>();
    let colour = Colour { matrix: Matrix::Bt709, full_range: true };
    let yuyv = Frame { stamp_ns: 77, colour, ..Frame::new(8, 8, PixelFormat::Yuyv, bytes(128)) };
    let seen = pass(yuyv.clone());
    let picture = seen.frame().expect("a picture");
    assert_eq!((picture.format, picture.stride, picture.bt709, picture.full_range), (FrameFormat::Yuyv, 16, true, true));
    assert_eq!((picture.bytes, seen.rgb(), seen.stamp_ns(), seen.failed()), (&yuyv.data[..], None, Some(77), 8));
    assert_eq!(seen.drops(), Drops { total: 7, busy: 1, source: 2, corrupt: 4 });
    assert_eq!(as_frame(&picture, (8, 8)).expect("a format of ours"), Frame { stamp_ns: 0, ..yuyv.clone() });

    let rgb = Frame::rgb(8, 8, bytes(192));
    let seen = pass(Frame { jpeg: bytes(150), ..rgb.clone() });
    let picture = seen.frame().expect("a picture");
    assert_eq!((picture.format, picture.stride, picture.bytes, seen.rgb()), (FrameFormat::Mjpeg, 0, &bytes(150)[..], None));

    // three bytes a pixel are all the room there is
    let seen = pass(Frame { jpeg: bytes(193), ..rgb.clone() });
    assert_eq!((seen.rgb(), seen.stamp_ns()), (Some(&rgb.data[..]), None));
    let bgrx = Frame::new(8, 8, PixelFormat::Bgrx, bytes(256));
    let seen = pass(bgrx.clone());
    assert_eq!(seen.rgb().map(<[u8]>::len), Some(192));
    assert!(seen.rgb().expect("RGB").chunks(3).zip(bgrx.data.chunks(4)).all(|(rgb, bgrx)| rgb == [bgrx[2], bgrx[1], bgrx[0]]));
    sink.stop();
    let _ = std::fs::remove_dir_all(directory);
}
