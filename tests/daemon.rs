//! The daemon as a user runs it: sources, subscribers in other processes, signals, kill -9.

mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use eomt_edge_client::{ClientError, Drops, FrameFormat, MaskFrame};
use rustix::process::Signal;
use serde_json::Value;

use common::daemon::{Daemon, PATIENCE, connect, next, run, start};
use common::{Scratch, data, eomt_edge, shipped_model, succeed};

/// Eight pictures as files of their own.
fn clip() -> PathBuf {
    data("clip")
}

#[test]
fn a_second_process_sees_the_masks() {
    let scratch = Scratch::new("view");
    let socket = scratch.path("masks.sock");
    let _daemon = start(&socket, "scenes:3", &["ring.include_frame=true", "source.fps=0"]);
    let mut view = eomt_edge();
    view.args(["view", "--json", "--frames", "4", "--timeout", "120", "--socket"]).arg(&socket).arg("--save").arg(scratch.path("out"));
    let output = succeed(&mut view);
    let lines: Vec<Value> =
        output.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    for line in &lines {
        assert_eq!((&line["width"], &line["height"]), (&320.into(), &240.into()));
        let labels: Vec<&str> = line["segments"].as_array().unwrap().iter().map(|s| s["label"].as_str().unwrap()).collect();
        assert!(labels.contains(&"floor") && labels.contains(&"wall"), "{labels:?}");
        assert!(line["published_ns"].as_u64() > line["captured_ns"].as_u64());
    }
    assert!(lines.windows(2).all(|pair| pair[0]["sequence"].as_u64() < pair[1]["sequence"].as_u64()));
    assert_eq!(std::fs::read_dir(scratch.path("out")).unwrap().count(), 4);
}

/// A kind of source that the program does not have: one entry, and its frames come by URI.
mod counter {
    use eomt_edge::source::{SourceKind, SourceOptions, SourceSpec};
    use eomt_edge_core::data::Frame;
    use eomt_edge_core::pipeline::{Captured, Source, SourceError};

    pub const COUNTER: SourceKind = SourceKind {
        scheme: "counter",
        usage: &["counter:END"],
        summary: "black frames up to a number",
        uses_view: false,
        uses_source_size: true,
        parse: |rest| match rest.unwrap_or_default().parse() {
            Ok(end) => Ok(Box::new(Spec { end })),
            Err(_) => Err(String::new()),
        },
    };

    #[derive(Debug)]
    struct Spec {
        end: u64,
    }

    struct Counter {
        size: (u32, u32),
        next: u64,
        end: u64,
    }

    impl SourceSpec for Spec {
        fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
            Ok(Box::new(Counter { size: options.size, next: 1, end: self.end }))
        }
    }

    impl Source for Counter {
        fn describe(&self) -> String {
            "a counter".to_owned()
        }

        fn max_size(&self) -> (u32, u32) {
            self.size
        }

        fn interval(&self) -> Option<std::time::Duration> {
            Some(std::time::Duration::ZERO)
        }

        fn next(&mut self, now_ns: u64, _: Vec<u8>) -> Result<Captured, SourceError> {
            if self.next > self.end {
                return Ok(Captured::End);
            }
            let frame = Frame::rgb(self.size.0, self.size.1, vec![0; (3 * self.size.0 * self.size.1) as usize]);
            self.next += 1;
            Ok(Captured::Frame(Frame { sequence: self.next - 1, captured_ns: now_ns, ..frame }))
        }
    }
}

#[test]
fn another_kind_of_source_takes_one_entry() {
    use eomt_edge::config::Config;
    use eomt_edge::source::SourceKinds;
    use eomt_edge_core::pipeline::Captured;
    let config = Config::parse("[source]\nuri = \"counter:2\"\nsize = \"4x3\"\n", &[]).expect("a configuration");
    let without = SourceKinds::default().parse(&config.source.uri).expect_err("an unknown kind");
    assert!(without.contains("'counter:2'") && without.contains("exec:COMMAND"), "{without}");
    let kinds = SourceKinds::default().with(&counter::COUNTER);
    let uri = kinds.parse(&config.source.uri).expect("a known kind");
    let options = eomt_edge::daemon::source_options(&config);
    assert_eq!((uri.kind().scheme, uri.check(&options)), ("counter", Ok(())));
    let mut source = uri.open(&options).expect("it opens");
    let numbers = std::iter::from_fn(|| match source.next(7, Vec::new()).expect("a frame or the end") {
        Captured::Frame(frame) => Some((frame.sequence, frame.width, frame.captured_ns)),
        _ => None,
    });
    assert_eq!(numbers.collect::<Vec<_>>(), [(1, 4, 7), (2, 4, 7)]);
    // errors and help of the larger table name it, too
    assert!(kinds.parse("counter:x").unwrap_err().contains("counter:END"));
    assert!(kinds.parse("nonsense").unwrap_err().ends_with("ros2:fifo:PATH or counter:END"));
}

#[test]
fn help_and_the_shipped_configuration_name_every_kind_of_source() {
    let help = String::from_utf8(succeed(eomt_edge().args(["run", "--help"])).stdout).expect("UTF-8");
    let words: Vec<&str> = help.split([' ', ',', '\n']).map(|word| word.trim_end_matches(':')).collect();
    let shipped = include_str!("../config/eomt-edge.toml");
    for kind in eomt_edge::source::registry::BUILT_IN {
        for usage in kind.usage {
            assert!(words.contains(&usage.trim_end_matches(':')), "run --help lacks {usage}: {words:?}");
            assert!(shipped.contains(usage), "config/eomt-edge.toml lacks {usage}");
        }
    }
}

/// Known ground truth: where the scene says floor, wall or sky, the daemon's masks mostly say so too.
#[test]
fn scenes_are_segmented_rightly() {
    use eomt_edge::source::ScenesSource;
    use eomt_edge_core::data::Unpublished;
    use eomt_edge_core::pipeline::{Captured, NullSink, Pipeline, Source};
    use eomt_edge_core::segment::PostProcessConfig;
    use eomt_edge_host::MonotonicClock;
    let model =
        eomt_edge_host::model_file::load(&shipped_model(), &eomt_edge_host::model_file::Compute::threads(1)).expect("the shipped model");
    let metadata = model.metadata().clone();
    let config = PostProcessConfig { task: metadata.task, thresholds: metadata.thresholds, ..PostProcessConfig::default() }
        .with_stuff(&metadata.stuff_classes);
    let (mut pipeline, mut sink) = (Pipeline::new(model, config), NullSink::default());
    let (mut right, mut all) = (0u32, 0u32);
    for seed in 0..6 {
        let drawn = ScenesSource::new(seed, (192, 160), Duration::ZERO).next(0, Vec::new()).expect("drawn");
        let Captured::Frame(frame) = drawn else { panic!("scenes never end") };
        pipeline.process(&frame, Unpublished::default(), &mut sink, &MonotonicClock).expect("processed");
        let truth = frame.truth.expect("scenes know");
        let class_of = |id: u16| truth.classes.iter().find(|(truth_id, _)| *truth_id == id).map(|(_, class)| *class);
        for (&truth_id, &id) in truth.ids.iter().zip(&sink.ids) {
            if class_of(truth_id).is_some_and(|class| class >= 6) {
                all += 1;
                right += u32::from(id > 0 && Some(sink.last.table[usize::from(id) - 1].category_id) == class_of(truth_id));
            }
        }
    }
    // the card says: panoptic quality of stuff 97; moving scenes are a little off the training distribution
    assert!(f64::from(right) > 0.85 * f64::from(all), "{right} of {all} stuff pixels");
}

#[test]
fn replay_gives_what_segment_gives() {
    let scratch = Scratch::new("replay");
    let socket = scratch.path("masks.sock");
    let mut images: Vec<PathBuf> = std::fs::read_dir(clip()).unwrap().map(|entry| entry.unwrap().path()).collect();
    images.sort();
    let mut segment = eomt_edge();
    segment.args(["segment", "--model"]).arg(shipped_model()).args(&images).arg("-o").arg(scratch.path("results"));
    succeed(&mut segment);
    let _daemon = start(&socket, &format!("replay:{}@0", clip().display()), &["ring.slots=64"]);
    let mut subscriber = connect(&socket);
    for _ in 0..12 {
        let frame = next(&mut subscriber);
        let image = &images[(frame.info.frame_sequence as usize - 1) % images.len()];
        let name = image.file_stem().unwrap().to_str().unwrap();
        let panoptic = image::open(scratch.path(&format!("results/{name}.panoptic.png"))).unwrap().into_rgb8();
        let expected: Vec<u16> = panoptic.pixels().map(|p| u16::from(p[0]) + 256 * u16::from(p[1])).collect();
        assert!(frame.ids == expected, "the id map of {name} differs");
        let text = std::fs::read_to_string(scratch.path(&format!("results/{name}.json"))).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let expected: Vec<(u64, u64)> = document["segments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| (s["category_id"].as_u64().unwrap(), s["area"].as_u64().unwrap()))
            .collect();
        let ours: Vec<(u64, u64)> = frame.segments.iter().map(|row| (row.class.into(), row.area.into())).collect();
        assert_eq!(ours, expected, "{name}");
    }
    let labels = subscriber.labels().to_vec();
    assert_eq!(labels[..2], ["ball", "box"]);
}

#[test]
fn the_newest_frame_wins_and_what_is_late_is_counted() {
    let scratch = Scratch::new("rate");
    let socket = scratch.path("masks.sock");
    // far faster than any machine segments: the newest frame wins, the rest is counted
    let _daemon = start(&socket, &format!("replay:{}@1000", clip().display()), &[]);
    let mut subscriber = connect(&socket);
    let first = next(&mut subscriber);
    let missing = |frame: &MaskFrame| {
        let captured = frame.info.frame_sequence - first.info.frame_sequence;
        captured - (frame.sequence() - first.sequence())
    };
    // what the sequence lacks has been counted, in every frame; how soon there is something depends on the machine
    let late = std::iter::repeat_with(|| next(&mut subscriber)).inspect(|frame| {
        assert!(frame.info.dropped >= missing(frame));
        assert_eq!(frame.drops(), Drops { total: frame.info.dropped, busy: frame.info.dropped, ..Drops::default() });
    });
    assert!(late.take(100_000).any(|frame| missing(&frame) > 0), "a thousand frames a second are not too many for this machine");
}

#[test]
fn damaged_pictures_are_counted_as_such() {
    let scratch = Scratch::new("corrupt");
    let socket = scratch.path("masks.sock");
    // 9 good pictures and 10 damaged ones, over and over, as fast as they are processed
    let _daemon = start(&socket, &format!("replay:{}@0", data("jpeg").display()), &["source.no_signal_after=0"]);
    let mut subscriber = connect(&socket);
    let frame = std::iter::repeat_with(|| next(&mut subscriber)).find(|frame| frame.sequence() >= 18).expect("they never end");
    // the source may have read on while this frame was in work
    let Drops { total, busy, source, corrupt } = frame.drops();
    assert_eq!((total, busy, source, frame.failed(), frame.stamp_ns()), (corrupt, 0, 0, 0, None));
    let missing = frame.info.frame_sequence - frame.sequence();
    assert!(missing > 0 && (missing..missing + 20).contains(&corrupt), "{missing} of the source's frames are missing, {corrupt} counted");
}

#[test]
fn the_ring_says_what_makes_the_masks() {
    let scratch = Scratch::new("facts");
    let socket = scratch.path("masks.sock");
    let _daemon = start(&socket, "scenes:3", &["model.threshold=0.25", "model.threads=1", "model.task=semantic"]);
    let facts: Value = serde_json::from_str(connect(&socket).metadata()).unwrap();
    let model = std::fs::read(shipped_model()).unwrap();
    let expected = serde_json::json!({
        "file": "eomt-nano-scenes.onnx", "sha256": eomt_edge_host::files::sha256(&model), "precision": "int8",
        "input_size": facts["model"]["input_size"],
    });
    assert_eq!(facts["model"], expected);
    assert!(facts["model"]["input_size"].as_array().is_some_and(|size| size.len() == 2 && size.iter().all(|side| side.as_u64() > Some(0))));
    assert_eq!((&facts["thresholds"]["score"], &facts["threads"], &facts["task"]), (&0.25.into(), &1.into(), &"semantic".into()));
    assert_eq!((&facts["source"], &facts["version"]), (&"scenes:3".into(), &env!("CARGO_PKG_VERSION").into()));
    assert!(facts["isa"].is_string() && facts["thresholds"]["mask"].is_f64() && facts["labels"].is_array());
}

#[test]
fn the_camera_frame_comes_as_the_source_gave_it_unless_it_was_changed() {
    let scratch = Scratch::new("formats");
    let socket = scratch.path("masks.sock");
    let sent: Vec<u8> = (0..64 * 48 * 2).map(|at| (at * 31 % 249) as u8).collect();
    for (settings, size, format, full_range) in [
        (&["ring.frame_format=source", "source.colour=bt601-full"][..], (64, 48), FrameFormat::Yuyv, true),
        (&["ring.frame_format=source", "camera.rotate=90"], (48, 64), FrameFormat::Rgb24, false),
        (&["ring.frame_format=rgb"], (64, 48), FrameFormat::Rgb24, false),
    ] {
        let plain = ["source.size=64x48", "source.no_signal_after=0", "source.end=stop", "source.format=yuyv", "ring.include_frame=true"];
        let settings = [&plain, settings].concat();
        let mut daemon = Daemon(run(&socket, "pipe:-", &settings).stdin(Stdio::piped()).spawn().unwrap());
        let mut input = daemon.0.stdin.take().unwrap();
        let mut subscriber = connect(&socket);
        input.write_all(&sent).unwrap();
        let frame = next(&mut subscriber);
        let picture = frame.frame().expect("it was asked for");
        assert_eq!((frame.width(), frame.height(), picture.format, picture.full_range), (size.0, size.1, format, full_range));
        match format {
            FrameFormat::Yuyv => assert_eq!((picture.bytes, frame.rgb()), (&sent[..], None)),
            _ => assert_eq!(frame.rgb().map(<[u8]>::len), Some(64 * 48 * 3)),
        }
        drop(input);
        assert_eq!(daemon.wait(), Some(0));
    }
}

#[test]
fn frames_ends_cleanly_and_leaves_nothing() {
    let scratch = Scratch::new("frames");
    let socket = scratch.path("masks.sock");
    let output = run(&socket, "scenes", &["source.fps=0"]).args(["--frames", "3"]).stderr(Stdio::piped()).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && log.contains("3 frames in"), "{log}");
    assert!(scratch.names().is_empty(), "{:?}", scratch.names());
}

#[test]
fn raw_frames_come_through_a_pipe() {
    let scratch = Scratch::new("pipe");
    let socket = scratch.path("masks.sock");
    let (width, height) = (64usize, 48usize);
    let lengths = [("rgb24", 6), ("bgr24", 6), ("grey", 2), ("yuyv", 4), ("uyvy", 4), ("nv12", 3), ("nv21", 3), ("yuv420", 3)];
    for (format, half_bytes) in lengths {
        let len = width * height * half_bytes / 2;
        let settings = ["source.size=64x48", "source.no_signal_after=0", "source.end=stop", &format!("source.format={format}")];
        let mut daemon = Daemon(run(&socket, "pipe:-", &settings).stdin(Stdio::piped()).spawn().unwrap());
        let mut input = daemon.0.stdin.take().unwrap();
        let mut subscriber = connect(&socket);
        input.write_all(&vec![120; len]).unwrap();
        let frame = next(&mut subscriber);
        assert_eq!((frame.width(), frame.height(), frame.info.frame_sequence), (64, 48, 1));
        drop(input);
        assert_eq!(daemon.wait(), Some(0), "this end of the input was asked for");
        assert!(matches!(subscriber.next(Some(PATIENCE)), Err(ClientError::Ended { clean: true, .. })));
    }
    for (len, end, words) in [(1000, "stop", "1000 bytes into a frame of 9216"), (9216, "fail", "source.end=stop")] {
        let settings = ["source.size=64x48", &format!("source.end={end}")];
        let mut command = run(&socket, "pipe:-", &settings);
        let mut daemon = Daemon(command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        daemon.0.stdin.take().unwrap().write_all(&vec![1; len]).unwrap();
        assert_eq!(daemon.wait(), Some(1), "a camera does not end");
        let log = std::io::read_to_string(daemon.0.stderr.take().unwrap()).unwrap();
        assert!(log.contains(words), "{log}");
    }
    assert!(scratch.names().is_empty(), "{:?}", scratch.names());
}

/// Whether a process is there, and more than a zombie that init has not collected yet.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}

#[test]
fn a_command_is_a_camera_that_ends_with_the_daemon() {
    for signal in [Signal::TERM, Signal::KILL] {
        let scratch = Scratch::new("exec");
        let (socket, pid, go) = (scratch.path("masks.sock"), scratch.path("pid"), scratch.path("go"));
        // one frame and an end; at the second start one when somebody looks, and then no more
        let twice = "echo $$ >> PID; first() { [ $(wc -l < PID) = 1 ]; }; first || while [ ! -e GO ]; do sleep 0.05; done; \
            head -c 3072 /dev/zero; first || exec sleep 1000";
        let source = format!("exec:{}", twice.replace("PID", &pid.display().to_string()).replace("GO", &go.display().to_string()));
        let settings =
            ["source.size=64x48", "source.format=grey", "source.no_signal_after=0.3", "camera.crop=40x30+4+2", "camera.rotate=90"];
        let mut daemon = start(&socket, &source, &settings);
        let mut subscriber = connect(&socket);
        std::fs::write(&go, "").unwrap();
        let frames = std::iter::repeat_with(|| next(&mut subscriber)).filter(|frame| !frame.no_signal());
        let frame = frames.into_iter().find(|frame| frame.info.frame_sequence == 2).expect("the second start's");
        assert_eq!((frame.width(), frame.height()), (30, 40), "cut and turned");
        let silent = std::iter::repeat_with(|| next(&mut subscriber)).find(|frame| frame.no_signal());
        assert!(silent.is_some(), "and then it says nothing");
        let pids = std::fs::read_to_string(&pid).unwrap();
        let pid = pids.lines().last().expect("it wrote its number").to_owned();
        assert!(is_alive(&pid));
        daemon.signal(signal);
        daemon.wait();
        let deadline = Instant::now() + PATIENCE;
        while is_alive(&pid) {
            assert!(Instant::now() < deadline, "after {signal:?} the command goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_fifo_is_a_camera_whose_writers_come_and_go() {
    let scratch = Scratch::new("fifo");
    let (socket, fifo) = (scratch.path("masks.sock"), scratch.path("frames"));
    let source = format!("pipe:{}", fifo.display());
    let mut daemon = start(&socket, &source, &["source.size=64x48", "source.format=grey", "source.no_signal_after=0.3"]);
    let mut subscriber = connect(&socket);
    assert!(next(&mut subscriber).no_signal(), "it is not there yet");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for sequence in 1..=2 {
        std::fs::File::options().write(true).open(&fifo).unwrap().write_all(&[90; 64 * 48]).unwrap();
        let frame = std::iter::repeat_with(|| next(&mut subscriber)).find(|frame| !frame.no_signal()).expect("a frame");
        assert_eq!(frame.info.frame_sequence, sequence);
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn sigterm_ends_the_daemon_cleanly() {
    let scratch = Scratch::new("sigterm");
    let socket = scratch.path("masks.sock");
    let mut daemon = start(&socket, "scenes", &[]);
    let mut subscriber = connect(&socket);
    next(&mut subscriber);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
    let end = std::iter::repeat_with(|| subscriber.next(Some(PATIENCE))).find_map(Result::err).expect("an end");
    assert!(matches!(end, ClientError::Ended { .. }), "{end}");
    let deadline = Instant::now() + PATIENCE;
    while !scratch.names().is_empty() {
        assert!(Instant::now() < deadline, "{:?} remains", scratch.names());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn after_kill_9_clients_see_the_end_and_find_the_next_daemon() {
    let scratch = Scratch::new("kill9");
    let socket = scratch.path("masks.sock");
    let mut daemon = start(&socket, "scenes", &[]);
    let mut subscriber = connect(&socket);
    next(&mut subscriber);
    daemon.signal(Signal::KILL);
    let end = std::iter::repeat_with(|| subscriber.next(Some(PATIENCE))).find_map(Result::err).expect("an end");
    assert!(matches!(end, ClientError::Ended { clean: false, .. }), "{end}");
    daemon.wait();
    let deadline = Instant::now() + PATIENCE;
    while !scratch.names().is_empty() {
        assert!(Instant::now() < deadline, "{:?} remains", scratch.names());
        std::thread::sleep(Duration::from_millis(20));
    }
    let _next = start(&socket, "scenes", &[]);
    next(&mut connect(&socket));
}

#[test]
fn a_live_daemons_socket_is_respected() {
    let scratch = Scratch::new("taken");
    let socket = scratch.path("masks.sock");
    let _daemon = start(&socket, "scenes", &[]);
    let mut subscriber = connect(&socket);
    next(&mut subscriber);
    let output = run(&socket, "scenes", &[]).stderr(Stdio::piped()).output().unwrap();
    let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{sentence}");
    assert!(sentence.contains("masks.sock") && sentence.contains("taken"), "{sentence}");
    next(&mut subscriber);
}

#[test]
fn what_is_missing_is_said() {
    let scratch = Scratch::new("missing");
    let socket = scratch.path("masks.sock");
    let empty = scratch.path("empty");
    std::fs::create_dir(&empty).unwrap();
    for (source, words) in [
        (format!("replay:{}", empty.display()), "no PNG or JPEG"),
        ("replay:/nowhere/at/all".to_owned(), "/nowhere/at/all"),
        ("v4l2:/dev/null".to_owned(), "/dev/null"),
        (format!("v4l2:{}", empty.display()), "no V4L2 device"),
    ] {
        let output = run(&socket, &source, &[]).stderr(Stdio::piped()).output().unwrap();
        let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{sentence}");
        assert!(sentence.contains(words), "{sentence}");
    }
    let output = run(&scratch.path("no/such/dir/masks.sock"), "scenes", &[]).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no/such/dir"));
}
