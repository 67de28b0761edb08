//! Streams as the bridge writes them, through real pipes.

use super::*;

fn options() -> Ros2Options {
    Ros2Options { size: (4, 4), max_pixels: 1000, view: View::default() }
}

/// A source of what a shell command writes.
fn source(command: String) -> Ros2Source {
    Ros2Source::new("ros2:/test".to_owned(), Input::Command { command, launcher: Vec::new() }, options())
}

/// A file of these bytes, and a command that writes it and stays.
fn written(name: &str, bytes: &[u8]) -> String {
    let path = std::env::temp_dir().join(format!("eomt-ros2-{name}-{}", std::process::id()));
    std::fs::write(&path, bytes).expect("a temporary file");
    format!("cat '{0}'; rm '{0}'; exec sleep 60", path.display())
}

fn header(encoding: &str, width: u32, height: u32, step: u32) -> FrameHeader {
    let bytes = u64::from(step * height);
    FrameHeader { encoding: encoding.to_owned(), width, height, step, bytes, stamp_ns: 77, ..FrameHeader::default() }
}

fn message(header: &FrameHeader, data: &[u8]) -> Vec<u8> {
    [&header.encode().expect("a header")[..], data].concat()
}

fn next(source: &mut Ros2Source) -> Result<Frame, SourceError> {
    loop {
        match source.next(MonotonicClock.now_ns(), Vec::new())? {
            Captured::Frame(frame) => return Ok(frame),
            Captured::NotYet(_) => {}
            Captured::End => panic!("topics do not end"),
        }
    }
}

#[test]
fn pictures_come_with_their_stamps_and_without_their_padding() {
    let first = message(&header("bgr8", 2, 2, 8), &[1, 2, 3, 4, 5, 6, 0, 0, 7, 8, 9, 10, 11, 12, 0, 0]);
    let second = message(&header("mono8", 6, 1, 6), &[1, 2, 3, 4, 5, 6]);
    let mut source = source(written("two", &[first, second].concat()));
    let frame = next(&mut source).expect("the first");
    assert_eq!((frame.width, frame.height, frame.stamp_ns, frame.sequence), (2, 2, 77, 1));
    assert_eq!(frame.data, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(source.max_size(), (4, 4));
    let frame = next(&mut source).expect("the second");
    assert_eq!((frame.data.as_slice(), frame.sequence), (&[1, 2, 3, 4, 5, 6][..], 2));
    assert_eq!(source.max_size(), (6, 4), "a larger picture makes room for itself");
}

#[test]
fn a_picture_that_cannot_be_read_is_passed_over() {
    let strange = message(&header("8UC7", 2, 1, 14), &[0; 14]);
    let good = message(&header("mono8", 1, 1, 1), &[9]);
    let mut source = source(written("strange", &[strange, good].concat()));
    let error = next(&mut source).expect_err("no encoding of that name");
    assert!(!error.fatal && error.to_string().contains("8UC7"), "{error}");
    assert_eq!(source.losses().broken, 1);
    assert_eq!(next(&mut source).expect("the next one").data, [9]);
}

#[test]
fn a_stream_that_breaks_is_opened_again() {
    let good = message(&header("mono8", 1, 1, 1), &[9]);
    // the first run writes something else, the second one frames
    let path = std::env::temp_dir().join(format!("eomt-ros2-again-{}", std::process::id()));
    std::fs::write(&path, &good).expect("a temporary file");
    let path = path.display();
    let command =
        format!("if [ -e '{path}.run' ]; then cat '{path}'; rm '{path}' '{path}.run'; exec sleep 60; else touch '{path}.run'; yes x; fi");
    let mut source = source(command);
    assert_eq!(next(&mut source).expect("the second run's").data, [9]);
}

#[test]
fn what_announces_too_much_takes_no_memory() {
    let huge = header("rgb8", 1 << 15, 1 << 15, 3 << 15);
    let mut source = source(written("huge", &message(&huge, &[])));
    for _ in 0..20 {
        assert!(matches!(source.next(MonotonicClock.now_ns(), Vec::new()), Ok(Captured::NotYet(_))));
    }
    assert_eq!(source.body.capacity(), 0);
}

#[test]
fn a_fifo_that_is_replaced_before_anybody_wrote_is_found() {
    let directory = std::env::temp_dir().join(format!("eomt-ros2-fifo-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let path = directory.join("frames");
    let make = || assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("coreutils").success());
    make();
    let mut source = Ros2Source::new("ros2:fifo:frames".to_owned(), Input::Fifo(path.clone()), options());
    assert!(matches!(source.next(MonotonicClock.now_ns(), Vec::new()), Ok(Captured::NotYet(_))));
    std::fs::remove_file(&path).expect("ours");
    make();
    let writer = std::thread::spawn({
        let path = path.clone();
        // waits for its reader
        move || std::fs::write(path, message(&header("mono8", 1, 1, 1), &[9]))
    });
    assert_eq!(next(&mut source).expect("the new one's").data, [9]);
    writer.join().expect("no panic").expect("a reader");
    std::fs::remove_dir_all(directory).expect("ours");
}
