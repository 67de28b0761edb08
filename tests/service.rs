//! The daemon as a service: what it tells the service manager, what a reload changes and what it refuses, and no signal.

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;

use common::daemon::{Daemon, PATIENCE, connect, next, run};
use common::{Scratch, eomt_edge, shipped_model};

/// The service manager's end of sd_notify(3).
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Manager {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Manager(socket)
    }

    /// The next message that contains `wanted`, and the messages before it.
    fn wait_for(&self, wanted: &str) -> (String, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        let mut before = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let count = self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted} after {before:?}: {error}"));
            let message = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if message.contains(wanted) {
                return (message, before);
            }
            before.push(message);
            assert!(Instant::now() < deadline, "no {wanted} in {before:?}");
        }
    }
}

/// `run` as a service whose watchdog allows a minute, and is fed once a second.
fn service(command: &mut Command, notify: &Path) -> Daemon {
    command.env("NOTIFY_SOCKET", notify).env("WATCHDOG_USEC", "60000000").env_remove("WATCHDOG_PID");
    Daemon(command.spawn().expect("the daemon starts"))
}

#[test]
fn the_service_manager_learns_the_state() {
    let scratch = Scratch::new("notify");
    let (socket, notify) = (scratch.path("masks.sock"), scratch.path("notify.sock"));
    let manager = Manager::listen(&notify);
    let mut daemon = service(&mut run(&socket, "scenes", &[]), &notify);
    let (ready, before) = manager.wait_for("READY=1");
    // while a model is tried, systemd is asked for patience
    assert!(before.iter().all(|message| message.starts_with("EXTEND_TIMEOUT_USEC=")), "{before:?}");
    assert!(!before.is_empty() && ready.contains("STATUS="), "{before:?} {ready}");
    // whoever was told that the daemon is ready can read masks at once
    let mut subscriber = eomt_edge_client::Subscriber::connect(&socket).expect("ready means served");
    next(&mut subscriber);
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    let (status, _) = manager.wait_for("frames a second");
    assert!(status.contains("published") && status.contains("dropped"), "{status}");
    daemon.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn a_source_without_frames_is_no_reason_to_restart() {
    let scratch = Scratch::new("nosignal");
    let (socket, notify) = (scratch.path("masks.sock"), scratch.path("notify.sock"));
    let manager = Manager::listen(&notify);
    let mut command = run(&socket, "pipe:-", &["source.size=64x48", "source.no_signal_after=0.3", "source.end=stop"]);
    let mut daemon = service(command.stdin(Stdio::piped()), &notify);
    let mut input = daemon.0.stdin.take().expect("piped");
    let mut subscriber = connect(&socket);
    let silent = next(&mut subscriber);
    assert!(silent.no_signal() && silent.segments.is_empty(), "nothing was fed");
    assert_eq!((silent.width(), silent.height(), silent.info.frame_sequence), (64, 48, 0));
    assert!(silent.ids.iter().all(|&id| id == 0));
    manager.wait_for("no signal");
    manager.wait_for("WATCHDOG=1");
    input.write_all(&[120; 64 * 48 * 3]).expect("the daemon reads");
    let frame = std::iter::repeat_with(|| next(&mut subscriber)).find(|frame| !frame.no_signal()).expect("a frame");
    assert_eq!(frame.info.frame_sequence, 1);
    let silent = next(&mut subscriber);
    assert!(silent.no_signal(), "and it falls silent again");
    assert_eq!((silent.info.frame_sequence, silent.info.captured_ns), (1, frame.info.captured_ns), "the last frame's");
    drop(input);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn a_camera_that_is_not_there_is_waited_for() {
    let scratch = Scratch::new("no-camera");
    let socket = scratch.path("masks.sock");
    let uri = format!("v4l2:{}", scratch.path("video7").display());
    let mut command = run(&socket, &uri, &["source.no_signal_after=0.3", "camera.size=64x48", "camera.rotate=90"]);
    let mut daemon = Daemon(command.stderr(Stdio::piped()).spawn().expect("the daemon starts"));
    let mut subscriber = connect(&socket);
    for _ in 0..2 {
        let silent = next(&mut subscriber);
        assert!(silent.no_signal() && (silent.width(), silent.height()) == (48, 64), "the size that is asked for, turned");
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
    let mut log = String::new();
    daemon.0.stderr.take().expect("piped").read_to_string(&mut log).expect("UTF-8");
    let said: Vec<&str> = log.lines().filter(|line| line.contains("video7: it is not there")).collect();
    assert_eq!(said.len(), 1, "once, however often it was looked for: {log}");
}

#[test]
fn a_reload_changes_what_works_and_keeps_the_rest() {
    let scratch = Scratch::new("reload");
    let (socket, notify, file) = (scratch.path("masks.sock"), scratch.path("notify.sock"), scratch.path("config.toml"));
    let write = |model: &Path, source: &str, slots: u32| {
        let (model, socket) = (model.display(), socket.display());
        let text = format!("[model]\npath = \"{model}\"\n[source]\n{source}\n[ring]\nsocket = \"{socket}\"\nslots = {slots}\n");
        std::fs::write(&file, text).expect("a scratch file");
    };
    write(&shipped_model(), "uri = \"scenes\"\nsize = \"96x64\"", 8);
    let manager = Manager::listen(&notify);
    let mut command = eomt_edge();
    let mut daemon = service(command.args(["run", "--config"]).arg(&file).stderr(Stdio::null()), &notify);
    manager.wait_for("READY=1");
    let mut subscriber = connect(&socket);
    let frame = next(&mut subscriber);
    // Python's zlib.crc32 of the URI
    assert_eq!((frame.width(), frame.source_id()), (96, 2_110_885_166), "scenes");
    let reload = || {
        daemon.signal(Signal::HUP);
        let (reloading, _) = manager.wait_for("RELOADING=1");
        assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
        manager.wait_for("READY=1").0
    };

    std::fs::write(&file, "[source]\nuri = \"scenes\"\nsise = \"64x48\"\n").expect("a scratch file");
    let status = reload();
    assert!(status.contains("refused") && status.contains("sise"), "{status}");
    write(Path::new("/nowhere/model.onnx"), "uri = \"scenes\"", 8);
    let status = reload();
    assert!(status.contains("refused") && status.contains("/nowhere/model.onnx"), "{status}");
    let broken = scratch.path("broken.onnx");
    std::fs::write(&broken, &std::fs::read(shipped_model()).expect("the model")[..5000]).expect("a scratch file");
    write(&broken, "uri = \"scenes\"", 8);
    let status = reload();
    assert!(status.contains("refused") && status.contains("broken.onnx"), "{status}");
    write(&shipped_model(), "uri = \"replay:/nowhere\"", 8);
    let status = reload();
    assert!(status.contains("refused") && status.contains("/nowhere"), "{status}");
    let frame = next(&mut subscriber);
    assert_eq!((frame.width(), frame.source_id()), (96, 2_110_885_166), "the same subscriber goes on to read the old source");

    // the ring's own settings take a restart; everything else changes at once
    write(&shipped_model(), "uri = \"scenes:5\"\nsize = \"64x48\"", 4);
    let status = reload();
    assert!(status.contains("STATUS=reloaded"), "{status}");
    let mut subscriber = connect(&socket);
    let frame = next(&mut subscriber);
    assert_eq!((frame.width(), frame.source_id(), frame.stale()), (64, 2_865_595_333, false), "scenes:5");

    // to a smaller source that gives nothing: the ring takes its size, and so does "no signal"
    let nowhere = scratch.path("video9");
    let source = format!("uri = \"v4l2:{}\"\nno_signal_after = 0.2\n[camera]\nsize = \"32x24\"", nowhere.display());
    write(&shipped_model(), &source, 8);
    let status = reload();
    assert!(status.contains("STATUS=reloaded"), "{status}");
    let silent = next(&mut connect(&socket));
    assert!(silent.no_signal(), "there is no such camera");
    assert_eq!((silent.width(), silent.height(), silent.source_id()), (32, 24, 0), "it has given no frame");
    assert!(silent.stale(), "the last picture is older than 0.2 s");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn log_lines_carry_priorities_in_the_journal_only() {
    let scratch = Scratch::new("journal");
    for journal in [true, false] {
        let path = scratch.path("log");
        let log = std::fs::File::create(&path).expect("a scratch file");
        let data = log.metadata().expect("just made");
        let stream = if journal { format!("{}:{}", data.dev(), data.ino()) } else { "1:2".to_owned() };
        let mut command = run(&scratch.path("masks.sock"), "scenes", &["source.fps=0"]);
        let status = command.args(["--frames", "1"]).env("JOURNAL_STREAM", stream).stderr(log).status().expect("the program");
        assert!(status.success());
        let text = std::fs::read_to_string(&path).expect("a log");
        assert!(text.lines().count() >= 3 && text.lines().all(|line| line.starts_with("<6>") == journal), "{text}");
    }
    // the last sentence of a failure has a rank too
    let path = scratch.path("failure");
    let log = std::fs::File::create(&path).expect("a scratch file");
    let data = log.metadata().expect("just made");
    let mut command = eomt_edge();
    let status = command.args(["run", "--model", "/nowhere.onnx"]).env("JOURNAL_STREAM", format!("{}:{}", data.dev(), data.ino()));
    assert_eq!(status.stderr(log).status().expect("the program").code(), Some(1));
    assert!(std::fs::read_to_string(&path).expect("a log").starts_with("<3>eomt-edge: /nowhere.onnx"));
}
