//! Real pipes and commands, and what real producers wrote (`tests/data/pipe`).

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eomt_edge_core::pipeline::FixedClock;
use eomt_edge_core::scenes::Scene;

use super::*;

fn options(size: (u32, u32), format: PixelFormat) -> PipeOptions {
    let (colour, view) = (Colour::default(), View::default());
    PipeOptions { size, format, colour, stride: Stride::Tight, end: InputEnd::Stop, view }
}

/// The outcome that is not "nothing yet".
fn next(source: &mut PipeSource) -> Result<Captured, SourceError> {
    loop {
        match source.next(MonotonicClock.now_ns(), Vec::new()) {
            Ok(Captured::NotYet(_)) => {}
            other => return other,
        }
    }
}

fn frame(source: &mut PipeSource) -> Frame {
    match next(source).expect("the input is there") {
        Captured::Frame(frame) => frame,
        other => panic!("{other:?}"),
    }
}

fn exec(command: &str, options: PipeOptions) -> PipeSource {
    PipeSource::command(command.to_owned(), Vec::new(), options).expect("there are such frames")
}

fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pipe").join(name).display().to_string()
}

/// A FIFO in a directory of its own.
struct Fifo(PathBuf);

impl Fifo {
    fn new(name: &str) -> Fifo {
        let directory = std::env::temp_dir().join(format!("eomt-fifo-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let fifo = Fifo(directory.join("frames"));
        fifo.make();
        fifo
    }

    fn make(&self) {
        assert!(Command::new("mkfifo").arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

#[derive(Debug, Clone, Default)]
struct Dial(Arc<AtomicU64>);

impl Clock for Dial {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn real_producers_frames_lose_their_padding_and_nothing_else() {
    for (name, format) in [
        ("gray8", PixelFormat::Grey),
        ("rgb", PixelFormat::Rgb24),
        ("bgr", PixelFormat::Bgr24),
        ("yuy2", PixelFormat::Yuyv),
        ("uyvy", PixelFormat::Uyvy),
        ("nv12", PixelFormat::Nv12),
        ("nv21", PixelFormat::Nv21),
        ("i420", PixelFormat::Yuv420),
    ] {
        for (width, height) in [(26, 18), (21, 15)] {
            // of an odd width's last pair, GStreamer's videocrop copies only half
            if width % 2 == 1 && matches!(format, PixelFormat::Yuyv | PixelFormat::Uyvy) {
                continue;
            }
            let truth = std::fs::read(data(&format!("{name}-{width}x{height}.tight"))).unwrap();
            let stride = Stride::GStreamer;
            let read = format!("cat {}", data(&format!("{name}-{width}x{height}.gst")));
            let mut source = exec(&read, PipeOptions { stride, ..options((width, height), format) });
            for truth in truth.chunks(truth.len() / 2) {
                assert_eq!(frame(&mut source).data, truth, "{name} {width}x{height}");
            }
            assert_eq!(next(&mut source).unwrap(), Captured::End, "{name} {width}x{height}");
        }
    }
}

#[test]
fn a_wrong_stride_is_seen_in_the_first_frame_of_real_producers() {
    for (file, format, size, truth) in [
        ("smpte-i420-106x80.gst", PixelFormat::Yuv420, (106, 80), Stride::GStreamer),
        ("testsrc-i420-106x80.tight", PixelFormat::Yuv420, (106, 80), Stride::Tight),
        ("testsrc-rgb-106x80.tight", PixelFormat::Rgb24, (106, 80), Stride::Tight),
    ] {
        let bytes = std::fs::read(data(file)).unwrap();
        for configured in [Stride::Tight, Stride::GStreamer] {
            let len = RawLayout::new(format, size, configured).unwrap().len().min(bytes.len());
            let seen = StrideCheck::new(format, size, configured).look(&bytes[..len]);
            assert_eq!(seen, (configured != truth).then_some(truth), "{file} read as {configured}");
        }
    }
}

/// Rows of `row` bytes, `stride` apart; what lies between is left from something else.
fn padded(tight: &[u8], row: usize, stride: usize) -> Vec<u8> {
    let fill = |y: usize| (row..stride).map(move |x| (x * 31 + y * 17) as u8);
    tight.chunks_exact(row).enumerate().flat_map(|(y, line)| line.iter().copied().chain(fill(y))).collect()
}

#[test]
fn wrong_strides_are_seen_and_right_ones_never_doubted() {
    let (width, height) = (214u32, 160u32);
    let row = width as usize;
    let mut wrong_seen = 0;
    for seed in 0..24 {
        let mut rgb = vec![0; row * height as usize * 3];
        Scene::new(seed, width, height).render(0.5, &mut rgb, &mut vec![0; row * height as usize]);
        let grey: Vec<u8> = rgb.chunks(3).map(|p| p[1]).collect();
        for (format, tight) in [(PixelFormat::Grey, &grey), (PixelFormat::Rgb24, &rgb)] {
            let row = tight.len() / height as usize;
            for stride in [row, row.next_multiple_of(4), row.next_multiple_of(64)] {
                let raw = padded(tight, row, stride);
                let look = |configured| StrideCheck::new(format, (width, height), configured).look(&raw);
                assert_eq!(look(Stride::Bytes(stride as u32)), None, "scene {seed} {format:?} {stride}");
                if stride != row {
                    let seen = look(Stride::Tight);
                    let right = |seen: Stride| RawLayout::new(format, (width, height), seen).unwrap().planes()[0].stride == stride;
                    assert!(seen.is_none_or(right), "scene {seed} {format:?} {stride}: {seen:?}");
                    wrong_seen += usize::from(seen.is_some());
                }
            }
        }
    }
    assert!(wrong_seen >= 90, "of 96 wrong readings {wrong_seen} were seen");
}

#[test]
fn noise_flat_pictures_and_slanted_patterns_are_not_doubted() {
    let (width, height) = (214u32, 160u32);
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let random: Vec<u8> = pixels.clone().map(|_| noise()).collect();
    let slanted =
        |slope: u32| pixels.clone().map(|(x, y)| if ((x + slope * y) / 8).is_multiple_of(2) { 30 } else { 220 }).collect::<Vec<u8>>();
    let ramp: Vec<u8> = pixels.clone().map(|(x, y)| (x + y / 2) as u8).collect();
    for (name, picture) in [
        ("noise", random),
        ("flat", vec![90; (width * height) as usize]),
        ("ramp", ramp),
        ("stripes 1", slanted(1)),
        ("stripes 2", slanted(2)),
        ("stripes 10", slanted(10)),
        ("stripes back", slanted(width - 2)),
    ] {
        assert_eq!(StrideCheck::new(PixelFormat::Grey, (width, height), Stride::Tight).look(&picture), None, "{name}");
    }
}

#[test]
fn a_frame_has_the_time_at_which_its_last_byte_was_there() {
    let fifo = Fifo::new("time");
    let clock = Dial::default();
    let mut source = PipeSource::fifo(fifo.0.clone(), options((4, 2), PixelFormat::Grey)).unwrap();
    source.clock = Box::new(clock.clone());
    assert!(matches!(source.next(0, Vec::new()), Ok(Captured::NotYet(_))), "nobody writes");
    let mut writer = std::fs::File::options().write(true).open(&fifo.0).unwrap();
    writer.write_all(&[1; 5]).unwrap();
    assert!(matches!(source.next(0, Vec::new()), Ok(Captured::NotYet(_))), "the rest is missing");
    clock.0.store(7_000, Ordering::SeqCst);
    writer.write_all(&[2; 3]).unwrap();
    let Ok(Captured::Frame(frame)) = source.next(0, Vec::new()) else { panic!("it is there") };
    assert_eq!((frame.captured_ns, frame.sequence, frame.data), (7_000, 1, vec![1, 1, 1, 1, 1, 2, 2, 2]));
}

#[test]
fn a_fifo_waits_for_its_next_writer_and_for_another_fifo_of_its_name() {
    let fifo = Fifo::new("writers");
    let mut source = PipeSource::fifo(fifo.0.clone(), PipeOptions { end: InputEnd::Fail, ..options((4, 2), PixelFormat::Grey) }).unwrap();
    for (round, bytes) in [(1, vec![1; 8 + 3]), (2, vec![2; 8])] {
        assert!(matches!(source.next(MonotonicClock.now_ns(), Vec::new()), Ok(Captured::NotYet(_))));
        std::fs::File::options().write(true).open(&fifo.0).unwrap().write_all(&bytes).unwrap();
        assert_eq!(frame(&mut source).data, vec![round; 8], "the half frame is not a part of the next one");
    }
    // its end comes first
    assert!(matches!(source.next(MonotonicClock.now_ns(), Vec::new()), Ok(Captured::NotYet(_))));
    assert_eq!(source.losses().broken, 1);
    std::fs::remove_file(&fifo.0).unwrap();
    fifo.make();
    let path = fifo.0.clone();
    let writer = std::thread::spawn(move || std::fs::File::options().write(true).open(path).unwrap().write_all(&[3; 8]).unwrap());
    assert_eq!(frame(&mut source).data, [3; 8]);
    writer.join().unwrap();
    let file = fifo.0.with_file_name("file");
    std::fs::write(&file, [1; 8]).unwrap();
    let refused = PipeSource::fifo(file, options((4, 2), PixelFormat::Grey)).err().expect("a file is no FIFO");
    assert!(refused.fatal && refused.reason.contains("mkfifo"), "{refused}");
}

#[test]
fn a_command_that_ends_is_started_again_unless_its_end_was_asked_for() {
    let again = PipeOptions { end: InputEnd::Fail, ..options((4, 1), PixelFormat::Grey) };
    let mut source = exec("printf abcdxy; echo why >&2; exit 3", again);
    source.clock = Box::new(FixedClock(0));
    for sequence in 1..=3 {
        let frame = frame(&mut source);
        assert_eq!((frame.data.as_slice(), frame.sequence), (&b"abcd"[..], sequence));
    }
    assert_eq!(source.losses().broken, 2, "each time half a frame more");
    assert_eq!(source.attempts.pause_ns, 4 * attempts::PAUSE_MIN_NS, "a frame alone is no sign that it runs");
    source.clock = Box::new(FixedClock(u64::MAX));
    assert_eq!(frame(&mut source).sequence, 4);
    assert_eq!(source.attempts.pause_ns, attempts::PAUSE_MIN_NS, "but to run for a while is");
    let mut source = exec("printf abcd", options((4, 1), PixelFormat::Grey));
    assert_eq!(frame(&mut source).data, b"abcd");
    assert_eq!(next(&mut source).unwrap(), Captured::End);
    for (command, word) in [("echo gone >&2; exit 3", "gone"), ("printf ab", "2 bytes into a frame of 4"), ("no-such-program", "not found")]
    {
        let error = next(&mut exec(command, options((4, 1), PixelFormat::Grey))).unwrap_err();
        assert!(error.fatal && error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_command_ends_with_its_source_and_so_do_its_children() {
    let fifo = Fifo::new("children");
    let alive = fifo.0.with_file_name("alive");
    // ignores being asked, as a hanging producer does
    let command = format!("trap '' TERM; sleep 1000 & echo $! $$ > {}; printf abcd; wait; sleep 1000", alive.display());
    let mut source = exec(&command, options((4, 1), PixelFormat::Grey));
    frame(&mut source);
    let pids = std::fs::read_to_string(&alive).unwrap();
    drop(source);
    for pid in pids.split_whitespace() {
        // gone, or a zombie that init has not collected yet; the kernel takes a moment
        let is_gone = || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with(['Z', 'X']))
        };
        let gone = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            is_gone()
        });
        assert!(gone, "{pid} goes on");
    }
}
