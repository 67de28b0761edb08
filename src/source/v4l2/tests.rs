//! Which camera is taken and how it is left, against drivers at the `ioctl` border: nodes as boards have them.

use std::collections::BTreeMap;
use std::fs;

use eomt_edge_core::data::{PixelFormat, View};
use rustix::io::Errno;
use v4l::v4l_sys::*;

use super::report::pick_among;
use super::sys::fake::{FakeCamera, Formats, Handle, plug};
use super::*;
use crate::source::FormatRequest;

/// A directory of nodes, gone with its end.
struct Board {
    directory: PathBuf,
    handles: Vec<Handle>,
}

impl Board {
    fn new(name: &str, cameras: &[(u32, FakeCamera)]) -> Board {
        let directory = std::env::temp_dir().join(format!("eomt-board-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let directory = fs::canonicalize(directory).unwrap();
        let mut board = Board { directory, handles: Vec::new() };
        for (number, camera) in cameras {
            fs::write(board.node(*number), "").unwrap();
            let handle = plug(&board.node(*number), camera.clone());
            board.handles.push(handle);
        }
        board
    }

    fn node(&self, number: u32) -> PathBuf {
        self.directory.join(format!("video{number}"))
    }

    fn devices(&self) -> DeviceDirectory {
        DeviceDirectory { nodes: self.directory.clone(), class: self.directory.join("class") }
    }

    /// `v4l2:`, or a node by its number.
    fn open(&self, number: Option<u32>, format: Option<PixelFormat>) -> V4l2Source {
        let path = number.map(|number| self.node(number));
        let format = FormatRequest { size: (16, 8), fps: 30.0, format };
        let request = CameraRequest { format, view: View::default(), controls: BTreeMap::new() };
        let options = CameraOptions { request, max_pixels: 1 << 20 };
        V4l2Source::look(self.devices(), path.as_deref(), options).unwrap()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// One attempt to connect and a few turns; the frame that comes, and the node that gives it.
fn frame(source: &mut V4l2Source) -> Option<(Frame, PathBuf)> {
    for _ in 0..4 {
        if let Captured::Frame(frame) = source.next(u64::MAX, Vec::new()).unwrap() {
            let path = source.streaming.as_ref().unwrap().path.clone();
            return Some((frame, path));
        }
    }
    None
}

/// rp1-cfe as a Raspberry Pi 5 has it: every format of its table, whichever the sensor gives; STREAMON validates the links.
fn receiver() -> FakeCamera {
    FakeCamera {
        driver: "rp1-cfe",
        card: "rp1-cfe",
        bus: "platform:1f00128000.csi",
        capabilities: V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING | V4L2_CAP_IO_MC,
        formats: vec![(b"YUYV", vec![(16, 8)]), (b"RGB3", vec![(16, 8)]), (b"pBAA", vec![(16, 8)])],
        stream_on: |_, _, _| Some(Errno::INVAL),
        set: (*b"pBAA", 64, 48),
        ..FakeCamera::default()
    }
}

/// A sensor's raw data.
fn raw_sensor() -> FakeCamera {
    FakeCamera { card: "vi-output, imx219", bus: "platform:tegra-capture-vi:1", formats: vec![(b"RG10", vec![])], ..FakeCamera::default() }
}

#[test]
fn the_camera_that_needs_no_pipeline_and_is_read_is_taken() {
    let boards = [("cfe", receiver()), ("tegra", raw_sensor())];
    for (name, first) in boards {
        let board = Board::new(name, &[(0, first.clone()), (8, FakeCamera::default())]);
        let mut source = board.open(None, None);
        assert_eq!(source.device(), None, "no camera has given a frame");
        let (frame, path) = frame(&mut source).expect("a camera works");
        let device = source.device().expect("one gave a frame");
        assert!(device.starts_with("HD USB Camera, at usb-"), "{device}");
        assert_eq!((path, frame.format, frame.width), (board.node(8), PixelFormat::Yuyv, 16), "{name}");
        assert_eq!(board.handles[0].set(), (first.set, first.fps, false), "{name}: it is not touched");
        let lines = pick_among(&board.devices(), &source.options.request.format).unwrap();
        assert!(lines[0].contains("HD USB Camera") && lines[0].contains("16x8 YUYV at 30"), "{lines:?}");
        let expected = if name == "cfe" { "does not stream: rp1-cfe" } else { "imx219): it offers no format that is read, only RG10" };
        assert!(lines[1].contains(expected), "{lines:?}");
    }
}

#[test]
fn one_that_does_not_stream_is_put_back_and_the_next_one_is_taken() {
    for (errno, word) in [(Errno::INVAL, "Invalid argument"), (Errno::PIPE, "media pipeline"), (Errno::IO, "os error")] {
        let first = FakeCamera { set: (*b"YUYV", 32, 24), card: "First", ..FakeCamera::default() };
        let board = Board::new(&format!("second-{errno:?}"), &[(0, first.clone()), (2, FakeCamera::default())]);
        board.handles[0].change(|camera| {
            camera.stream_on = match errno {
                Errno::INVAL => |_, _, _| Some(Errno::INVAL),
                Errno::PIPE => |_, _, _| Some(Errno::PIPE),
                _ => |_, _, _| Some(Errno::IO),
            }
        });
        let mut source = board.open(None, None);
        assert_eq!(frame(&mut source).expect("the second works").1, board.node(2));
        assert_eq!(board.handles[0].set(), (first.set, first.fps, false), "format and rate as before");
        let said = search::list(&source.passed_over);
        assert!(said.contains("video0 (First): ") && said.contains(word), "{said}");
    }
}

#[test]
fn one_that_is_taken_or_takes_no_format_is_passed_over() {
    for (name, first) in [
        ("busy", FakeCamera { s_fmt: Some(Errno::BUSY), ..FakeCamera::default() }),
        ("forces", FakeCamera { forced: Some((b"H264", 16, 8)), ..FakeCamera::default() }),
        ("refuses", FakeCamera { s_fmt: Some(Errno::INVAL), ..FakeCamera::default() }),
        ("metadata", FakeCamera { capabilities: V4L2_CAP_META_CAPTURE | V4L2_CAP_STREAMING, ..FakeCamera::default() }),
        ("grey", FakeCamera { formats: vec![(b"GREY", vec![(16, 8)])], ..FakeCamera::default() }),
    ] {
        let board = Board::new(name, &[(0, first), (1, FakeCamera::default())]);
        assert_eq!(frame(&mut board.open(None, None)).map(|(_, path)| path), Some(board.node(1)), "{name}");
    }
}

#[test]
fn where_none_works_each_is_named_with_what_to_do() {
    let before = receiver();
    let board = Board::new("none", &[(0, before.clone()), (1, receiver()), (2, raw_sensor())]);
    let mut source = board.open(None, None);
    assert!(frame(&mut source).is_none());
    let said = source.problem.clone().unwrap();
    let (first, second) = (board.node(0), board.node(1));
    for words in [
        &format!(
            "{}, {} (rp1-cfe): it does not stream 16x8 RGB3 (EINVAL): configure its media pipeline",
            first.display(),
            second.display()
        ),
        "imx219): it offers no format that is read, only RG10; take its pictures through exec: or pipe:",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(said.lines().count(), 1);
    assert!(board.handles.iter().all(|handle| !handle.set().2));
    assert_eq!(board.handles[0].set().0, before.set, "put back");
    // whoever configures the pipeline meanwhile is served
    board.handles[1].change(|camera| camera.stream_on = |_, _, _| None);
    assert_eq!(frame(&mut source).map(|(_, path)| path), Some(board.node(1)));

    let empty = Board::new("empty", &[]);
    let mut source = empty.open(None, None);
    assert!(frame(&mut source).is_none());
    assert!(source.problem.unwrap().contains("there is none"));
}

#[test]
fn a_pipeline_that_somebody_configured_is_used_as_it_is_set() {
    let configured = FakeCamera { stream_on: |code, width, _| (code != *b"BGR3" || width != 32).then_some(Errno::PIPE), ..receiver() };
    let board = Board::new("configured", &[(0, FakeCamera { set: (*b"BGR3", 32, 8), ..configured })]);
    for number in [None, Some(0)] {
        let (frame, _) = frame(&mut board.open(number, None)).expect("it streams as it was set");
        assert_eq!((frame.format, frame.width), (PixelFormat::Bgr24, 32));
    }
    assert!(frame(&mut board.open(None, Some(PixelFormat::Yuyv))).is_none(), "another format is forced");
    assert_eq!(board.handles[0].set().0, (*b"BGR3", 32, 8));
}

#[test]
fn without_usb_bandwidth_mjpg_is_taken_unless_another_format_is_forced() {
    let formats: Formats = vec![(b"YUYV", vec![(16, 8)]), (b"MJPG", vec![(16, 8)])];
    let narrow = FakeCamera { formats, stream_on: |code, _, _| (code != *b"MJPG").then_some(Errno::NOSPC), ..FakeCamera::default() };
    let board = Board::new("narrow", &[(0, narrow.clone())]);
    let mut source = board.open(Some(0), None);
    let streaming = source.connect().map_err(|error| error.reason).unwrap();
    assert_eq!(streaming.layout.format, PixelFormat::Mjpg);
    assert!(
        source.complaints[0].contains("USB bandwidth does not suffice for 16x8 YUYV (ENOSPC): MJPG instead"),
        "{:?}",
        source.complaints
    );
    drop(streaming);
    for (format, formats) in [(Some(PixelFormat::Yuyv), narrow.formats.clone()), (None, vec![(b"YUYV", vec![(16, 8)])])] {
        let board = Board::new("narrower", &[(0, FakeCamera { formats, ..narrow.clone() })]);
        let mut source = board.open(Some(0), format);
        assert!(frame(&mut source).is_none());
        assert!(source.problem.unwrap().contains("USB bandwidth does not suffice for 16x8 YUYV (ENOSPC): ask for"));
        assert_eq!(board.handles[0].set(), (narrow.set, narrow.fps, false));
    }
}

#[test]
fn one_that_streams_and_gives_nothing_is_put_back_and_comes_last() {
    let silent = FakeCamera { gives_frames: false, set: (*b"YUYV", 32, 24), ..FakeCamera::default() };
    let board = Board::new("silent", &[(0, silent.clone()), (1, FakeCamera::default())]);
    let mut source = board.open(None, None);
    assert!(frame(&mut source).is_none() && board.handles[0].set().2, "it streams");
    source.wait_after(CameraError::passing("it gives no frames"));
    assert_eq!(board.handles[0].set(), (silent.set, silent.fps, false));
    assert_eq!(frame(&mut source).map(|(_, path)| path), Some(board.node(1)));
    // known from its first frame on: it is waited for, whatever else is there
    board.handles[0].change(|camera| camera.gives_frames = true);
    source.wait_after(CameraError::passing("it gives no frames"));
    board.handles[1].change(|camera| camera.stream_on = |_, _, _| Some(Errno::NOSPC));
    assert!(frame(&mut source).is_none());
    assert!(source.problem.as_ref().unwrap().contains("USB bandwidth"));
    board.handles[1].change(|camera| camera.stream_on = |_, _, _| None);
    assert_eq!(frame(&mut source).map(|(_, path)| path), Some(board.node(1)));
}

#[test]
fn a_node_that_is_named_and_does_not_stream_is_waited_for_with_its_reason() {
    let board = Board::new("named", &[(0, receiver()), (1, raw_sensor()), (2, FakeCamera::default())]);
    for (number, format, words) in [
        (
            0,
            None,
            "does not stream 16x8 RGB3 (EINVAL): configure its media pipeline (media-ctl), or take its pictures through exec: or pipe:",
        ),
        (1, None, "it offers no format that is read, only RG10"),
        (2, Some(PixelFormat::Nv16), "it does not offer camera.format = \"nv16\", only YUYV"),
    ] {
        let mut source = board.open(Some(number), format);
        assert!(frame(&mut source).is_none());
        let said = source.problem.clone().unwrap();
        assert!(said.contains(words), "{said}");
        assert!(source.describe().contains(words), "{}", source.describe());
    }
    board.handles[0].change(|camera| camera.stream_on = |_, _, _| None);
    assert!(frame(&mut board.open(Some(0), None)).is_some());
}

#[test]
fn stamps_that_cannot_be_are_replaced_by_the_arrival() {
    for (name, offset_ns, believed) in [("ahead", 3_600_000_000_000, false), ("behind", -5_000_000_000, false), ("true", -1_000_000, true)]
    {
        let board = Board::new(name, &[(0, FakeCamera { offset_ns, ..FakeCamera::default() })]);
        let start_ns = MonotonicClock.now_ns();
        let (frame, _) = frame(&mut board.open(None, None)).unwrap();
        let now_ns = MonotonicClock.now_ns();
        // a millisecond before it was asked for, or when it was there; microseconds are all that V4L2 has
        let earliest = start_ns - if believed { 1_001_000 } else { 0 };
        assert!((earliest..=now_ns).contains(&frame.captured_ns), "{name}: {} between {earliest} and {now_ns}", frame.captured_ns);
        assert!(believed || frame.captured_ns >= start_ns);
    }
}
