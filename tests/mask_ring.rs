//! The mask ring between processes: torn frames, stopped and hostile readers, kill -9, taken paths, leaks.
//!
//! The writer is `examples/ring_writer.rs`. Under an emulator, `EOMT_EDGE_TEST_RUNNER` is the command that runs executables of
//! the target (as cargo's own runner), and `EOMT_EDGE_TEST_CC` the compiler for it.

#[path = "mask_ring/clients.rs"]
mod clients;
#[path = "mask_ring/container.rs"]
mod container;
#[path = "mask_ring/daemon.rs"]
mod daemon;
#[path = "../crates/client/tests/handmade/mod.rs"]
mod handmade;
#[path = "mask_ring/hostile.rs"]
mod hostile;
#[path = "mask_ring/liars.rs"]
mod liars;
#[path = "mask_ring/limits.rs"]
mod limits;
#[path = "mask_ring/name.rs"]
mod name;
#[path = "mask_ring/support.rs"]
mod support;
#[path = "mask_ring/tampering.rs"]
mod tampering;

use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use eomt_edge_client::{ClientError, MaskFrame, Subscriber};
use rustix::process::{Signal, kill_process_group};

use support::{PATIENCE, Process, Scratch, c_subscriber, emulated, launch_writer, python, reapers, ring_writer, until, writer};

/// What `examples/ring_writer.rs` draws in frame `sequence`.
fn check_content(frame: &MaskFrame) {
    let sequence = frame.sequence();
    assert_eq!(frame.checksum_ok(), Some(true), "frame {sequence} is torn");
    assert_eq!((frame.info.captured_ns, frame.info.frame_sequence), (1000 * sequence, 2 * sequence));
    let count = 1 + sequence % 9;
    assert_eq!(frame.segments.len() as u64, count);
    assert!(frame.segments.iter().all(|row| row.track_id == sequence as u32), "frame {sequence} has rows of another");
    let mut value = sequence % (count + 1);
    for run in frame.ids.chunks(7) {
        assert!(run.iter().all(|&id| u64::from(id) == value), "frame {sequence} has ids of another");
        value = if value == count { 0 } else { value + 1 };
    }
}

const FASTER_WRITER: &[&str] = &["--slots", "2", "--width", "640", "--height", "480", "--flat", "40"];

fn next(reader: &mut Subscriber) -> MaskFrame {
    reader.next(Some(PATIENCE)).expect("a live ring").expect("a frame in time")
}

/// Four readers verify every frame of a writer at full speed for two seconds (and at least 100 frames each).
fn read_at_full_speed(options: &[&str]) {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let _writer = writer(&socket, options);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let socket = &socket;
            scope.spawn(move || {
                let mut reader = Subscriber::connect(socket).expect("a live writer");
                let mut frame = MaskFrame::default();
                let (start, mut seen, mut last) = (Instant::now(), 0u64, 0);
                while start.elapsed() < Duration::from_secs(2) || seen < 100 {
                    assert!(reader.next_into(&mut frame, Some(PATIENCE)).expect("a live ring"), "a frame in time");
                    assert!(frame.sequence() > last, "sequence {} after {last}", frame.sequence());
                    (last, seen) = (frame.sequence(), seen + 1);
                    check_content(&frame);
                }
                println!("reader {number}: {seen} of {last} frames, {} skipped, {} retries", reader.skipped(), reader.retries());
            });
        }
    });
}

#[test]
fn no_reader_sees_a_torn_frame() {
    read_at_full_speed(&["--slots", "4"]);
}

#[test]
fn no_reader_sees_a_torn_frame_in_the_smallest_ring() {
    read_at_full_speed(&["--slots", "2", "--width", "64", "--height", "48", "--rgb"]);
}

/// The writer fills a slot faster than a reader copies it, so that almost every copy is overtaken in its midst.
#[test]
fn no_reader_sees_a_torn_frame_of_a_faster_writer() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let _writer = writer(&socket, FASTER_WRITER);
    std::thread::scope(|scope| {
        for number in 0..3 {
            let socket = &socket;
            scope.spawn(move || {
                let mut reader = Subscriber::connect(socket).expect("a live writer");
                let mut frame = MaskFrame::default();
                let (start, mut seen) = (Instant::now(), 0u64);
                while start.elapsed() < Duration::from_secs(2) || seen < 30 {
                    assert!(reader.next_into(&mut frame, Some(PATIENCE)).expect("a live ring"), "a frame in time");
                    let (sequence, torn) = (frame.sequence(), frame.ids.iter().filter(|&&id| id != frame.sequence() as u16).count());
                    assert_eq!((torn, frame.info.captured_ns), (0, 1000 * sequence), "frame {sequence}");
                    seen += 1;
                }
                println!("reader {number}: {seen} frames, {} skipped, {} retries", reader.skipped(), reader.retries());
            });
        }
    });
}

#[test]
fn a_stopped_reader_costs_the_writer_nothing() {
    let scratch = Scratch::new();
    let _writer = writer(&scratch.socket(), &["--fps", "200"]);
    let mut command = c_subscriber();
    command.arg("--socket").arg(scratch.socket()).arg("--json");
    let mut stopped = Process::spawn(command);
    stopped.line();
    let mut other = Subscriber::connect(scratch.socket()).expect("a live writer");
    stopped.signal(Signal::STOP);
    let before = next(&mut other).sequence();
    let mut after = before;
    while after < before + 100 {
        let frame = next(&mut other);
        check_content(&frame);
        after = frame.sequence();
    }
    stopped.signal(Signal::CONT);
    loop {
        let line: serde_json::Value = serde_json::from_str(&stopped.line()).expect("JSON");
        assert_eq!(line["checksum_ok"], true);
        if line["sequence"].as_u64() > Some(after) {
            assert!(line["skipped"].as_u64() >= Some(50), "a stopped reader skips: {line}");
            break;
        }
    }
}

#[test]
fn after_kill_9_everybody_knows_and_nothing_remains() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let mut first = writer(&socket, &["--fps", "100"]);
    assert_eq!(reapers(&socket).len(), 1);
    let mut rust = Subscriber::connect(&socket).expect("a live writer");
    let mut command = c_subscriber();
    command.arg("--socket").arg(&socket);
    let mut c = Process::spawn(command);
    let mut command = python();
    command.args(["-m", "eomt_edge_client", "--socket"]).arg(&socket);
    let mut py = Process::spawn(command);
    let mut command = python();
    let script = "import sys, eomt_edge_client\nfor f in eomt_edge_client.Subscriber(sys.argv[1], reconnect=True): print(f.sequence)";
    command.args(["-c", script]).arg(&socket);
    let mut faithful = Process::spawn(command);
    check_content(&next(&mut rust));
    for client in [&mut c, &mut py, &mut faithful] {
        client.line();
    }

    first.signal(Signal::KILL);
    let error = loop {
        match rust.next(Some(PATIENCE)) {
            Ok(frame) => check_content(&frame.expect("a frame or the end")),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::Ended { clean: false, .. }), "{error}");
    for (client, name) in [(&mut c, "C"), (&mut py, "Python")] {
        let status = client.end(PATIENCE);
        let stderr = client.stderr();
        assert!(status.code() == Some(1) && stderr.contains("the daemon") && stderr.contains("has ended"), "{name}: {status} {stderr}");
    }
    until(PATIENCE, "the socket file to go", || !socket.exists());
    until(PATIENCE, "the reaper to go", || reapers(&socket).is_empty());
    first.end(PATIENCE);
    assert!(scratch.files().is_empty(), "{:?}", scratch.files());

    while faithful.lines.try_recv().is_ok() {}
    let _second = writer(&socket, &["--fps", "100"]);
    let mut rust = Subscriber::connect_retry(&socket, PATIENCE).expect("the new writer");
    check_content(&next(&mut rust));
    faithful.line();
}

#[test]
fn killing_the_whole_process_group_leaves_no_socket() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let mut command = emulated(&ring_writer());
    command.arg("--socket").arg(&socket).args(["--fps", "50"]).process_group(0);
    let mut writer = Process::spawn(command);
    assert_eq!(writer.line(), "ready");
    kill_process_group(writer.pid(), Signal::KILL).expect("our own group");
    until(PATIENCE, "the reaper to do its work", || !socket.exists() && reapers(&socket).is_empty());
}

#[test]
fn a_clean_stop_says_goodbye() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let mut process = writer(&socket, &["--fps", "100"]);
    let mut reader = Subscriber::connect(&socket).expect("a live writer");
    let mut last = next(&mut reader).sequence();
    process.signal(Signal::TERM);
    let error = loop {
        match reader.next(Some(PATIENCE)) {
            Ok(frame) => last = frame.expect("a frame or the end").sequence(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::Ended { clean: true, .. }), "{error}");
    assert_eq!(process.end(PATIENCE).code(), Some(0));
    assert_eq!(process.line(), format!("published {last}"), "the last frame arrived");
    assert!(reapers(&socket).is_empty() && scratch.files().is_empty());
}

/// A writer that must not start; returns its complaint.
fn refusal(socket: &Path) -> String {
    let mut process = launch_writer(socket, &["--frames", "1"]);
    assert_eq!(process.end(PATIENCE).code(), Some(1));
    process.stderr()
}

#[test]
fn a_dead_socket_is_replaced() {
    let scratch = Scratch::new();
    drop(UnixListener::bind(scratch.socket()).expect("a free path"));
    assert!(scratch.socket().exists());
    let mut first = writer(&scratch.socket(), &["--no-reaper", "--fps", "50"]);
    check_content(&next(&mut Subscriber::connect(scratch.socket()).expect("a live writer")));
    first.signal(Signal::KILL);
    first.end(PATIENCE);
    assert!(scratch.socket().exists(), "nobody was there to remove it");
    let _second = writer(&scratch.socket(), &["--fps", "50"]);
    check_content(&next(&mut Subscriber::connect(scratch.socket()).expect("a live writer")));
    assert_eq!(scratch.files(), ["masks.sock"]);
}

#[test]
fn a_live_socket_is_refused() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let live = writer(&socket, &["--fps", "50"]);
    let mut reader = Subscriber::connect(&socket).expect("a live writer");
    let complaint = refusal(&socket);
    let expected = format!("masks.sock is taken by a running daemon (process {})", live.id());
    // Debug output of an example's error; the daemon prints the sentence alone.
    assert!(complaint.contains("Taken") || complaint.contains(&expected), "{complaint}");
    assert!(complaint.contains(&format!("Some({})", live.id())), "{complaint}");
    check_content(&next(&mut reader));
    check_content(&next(&mut Subscriber::connect(&socket).expect("still there")));

    let foreign = scratch.join("foreign.sock");
    let _listener = UnixListener::bind(&foreign).expect("a free path");
    assert!(refusal(&foreign).contains("Taken"), "a stream socket of another program is alive, too");
}

#[test]
fn what_is_no_socket_stays_untouched() {
    let scratch = Scratch::new();
    std::fs::write(scratch.socket(), "precious").expect("a writable directory");
    assert!(refusal(&scratch.socket()).contains("NotASocket"));
    assert_eq!(std::fs::read_to_string(scratch.socket()).expect("still there"), "precious");
    std::fs::create_dir(scratch.join("dir")).expect("a free name");
    assert!(refusal(&scratch.join("dir")).contains("NotASocket"));
    std::os::unix::fs::symlink("masks.sock", scratch.join("link")).expect("a free name");
    assert!(refusal(&scratch.join("link")).contains("NotASocket"));
    assert!(refusal(&scratch.join("none/masks.sock")).contains("Directory"));
    assert_eq!(scratch.files().len(), 3, "{:?}", scratch.files());
}

#[test]
fn of_writers_that_start_together_one_wins() {
    // an emulated process may hang in the emulator itself; the kernel decides the race, and needs no emulation to be tried often
    let races = if std::env::var_os("EOMT_EDGE_TEST_RUNNER").is_some() { 1 } else { 5 };
    for _ in 0..races {
        race_for_the_name();
    }
}

fn race_for_the_name() {
    let scratch = Scratch::new();
    drop(UnixListener::bind(scratch.socket()).expect("a free path"));
    let mut crowd: Vec<Process> = (0..6).map(|_| launch_writer(&scratch.socket(), &["--fps", "50"])).collect();
    let outcomes: Vec<Option<String>> = crowd.iter_mut().map(|process| process.lines.recv_timeout(PATIENCE).ok()).collect();
    let winners: Vec<usize> = (0..6).filter(|&i| outcomes[i].as_deref() == Some("ready")).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    let reader = Subscriber::connect(scratch.socket()).expect("the winner");
    assert_eq!(reader.ring().writer_pid, crowd[winners[0]].id());
    for (i, process) in crowd.iter_mut().enumerate().filter(|(i, _)| !winners.contains(i)) {
        assert_eq!(process.end(PATIENCE).code(), Some(1), "writer {i}");
        assert!(process.stderr().contains("Taken"), "writer {i}");
    }
    assert_eq!(scratch.files(), ["masks.sock"]);
}
