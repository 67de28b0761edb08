//! Displays that are not there, and daemons that do not mind: real processes.
#![cfg(feature = "display")]

mod common;

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use common::daemon::{Daemon, connect, next, run};
use common::{Scratch, eomt_edge, shipped_model};

/// What displays may be instead of displays, and what the log says of it.
#[test]
fn a_missing_display_does_not_disturb_the_frame_path() {
    let scratch = Scratch::new("display");
    let plain = scratch.path("plain");
    std::fs::write(&plain, [0; 100]).expect("a scratch file");
    let at = |path: &std::path::Path| format!("display.device={}", path.display());
    let null = "display.device=/dev/null".to_owned();
    let displays = [
        ("fb", at(&scratch.path("fb0")), "cannot be opened"),
        ("fb", at(&plain), "no framebuffer"),
        ("spi", null.clone(), "cannot be opened"),
        ("oled", null, "cannot be opened"),
        ("spi", at(&scratch.path("spidev0.0")), "cannot be opened"),
    ];
    for (number, (kind, device, expected)) in displays.into_iter().enumerate() {
        let socket = scratch.path(&format!("masks{number}.sock"));
        let mut command = run(&socket, "scenes", &["source.fps=0", "source.size=64x48", &format!("display.kind={kind}"), &device]);
        let mut daemon = Daemon(command.env("RUST_LOG", "info").stderr(Stdio::piped()).spawn().expect("the daemon starts"));
        let mut log = daemon.0.stderr.take().expect("piped");
        let mut subscriber = connect(&socket);
        let first = next(&mut subscriber).info.frame_sequence;
        // longer than the first attempts to find it again take
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) {
            assert!(next(&mut subscriber).info.frame_sequence > first);
        }
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait(), Some(0));
        let mut text = String::new();
        log.read_to_string(&mut text).expect("UTF-8");
        let said: Vec<&str> = text.lines().filter(|line| line.contains("display ")).collect();
        assert_eq!(said.len(), 1, "once: {text}");
        assert!(said[0].contains(expected), "{}", said[0]);
        assert_eq!(std::fs::read(&plain).expect("readable"), [0; 100], "nothing is written to what is no display");
    }
}

#[test]
fn a_wrong_display_is_a_wrong_configuration() {
    let mut command = eomt_edge();
    command.args(["run", "--source", "scenes", "--set", "display.kind=spi", "--set", "display.size=500x500", "--model"]);
    let output = command.arg(shipped_model()).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("display.size") && message.lines().count() == 1, "{message}");
}

/// A panel that is missing does not delay the sentence about the model either.
#[test]
fn a_bad_model_ends_the_daemon_with_and_without_a_panel() {
    let scratch = Scratch::new("display-model");
    let model = scratch.path("model.onnx");
    std::fs::write(&model, "no model").expect("a scratch file");
    let mut command = eomt_edge();
    command.args(["run", "--source", "scenes", "--set", "display.kind=fb", "--set", "display.device=/dev/null", "--model"]);
    let output = command.arg(&model).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("model.onnx"), "{message}");
}
