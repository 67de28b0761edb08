//! The daemon itself against the examples of all languages: what they print, and that age and source of a frame are true.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::support::{PATIENCE, Process, Scratch, c_subscriber, emulated, examples, python, rust_subscriber};

/// Python's `zlib.crc32(b"scenes:3")`.
const SOURCE_ID: u32 = 1_135_486_704;

/// A daemon that segments `source` at 64x48 on the shipped model, with a stated `source.no_signal_after`.
fn daemon(scratch: &Scratch, source: &str, no_signal_after: f64) -> Process {
    let mut command = emulated(Path::new(env!("CARGO_BIN_EXE_eomt-edge")));
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/eomt-nano-scenes.onnx");
    command.args(["run", "--source", source, "--model"]).arg(model);
    let socket = format!("ring.socket={}", scratch.socket().display());
    let limit = format!("source.no_signal_after={no_signal_after}");
    for setting in [socket.as_str(), limit.as_str(), "source.size=64x48", "source.fps=0"] {
        command.args(["--set", setting]);
    }
    let daemon = Process::spawn(command);
    eomt_edge_client::Subscriber::connect_retry(scratch.socket(), PATIENCE).expect("the daemon listens");
    daemon
}

fn lines(mut command: Command, scratch: &Scratch, frames: usize) -> Vec<String> {
    command.args(["--frames", &frames.to_string(), "--socket"]).arg(scratch.socket());
    let mut client = Process::spawn(command);
    let lines: Vec<String> = (0..frames).map(|_| client.line()).collect();
    assert_eq!(client.end(PATIENCE).code(), Some(0), "--frames ends cleanly");
    lines
}

/// Whether a line names what every scene has, with a score.
fn has_label(line: &str) -> bool {
    [" floor ", " wall ", " sky "].iter().any(|label| line.contains(label))
}

fn python_example() -> Command {
    let mut command = python();
    command.arg(examples().join("python/subscriber.py"));
    command
}

#[test]
fn an_example_in_each_language_follows_the_daemon() {
    let scratch = Scratch::new();
    let _daemon = daemon(&scratch, "scenes:3", 0.0);
    for (language, command) in [("Rust", rust_subscriber()), ("Python", python_example())] {
        for line in lines(command, &scratch, 3) {
            let starts = line.split_once(' ').is_some_and(|(number, rest)| number.parse::<u64>().is_ok() && rest.starts_with("64x48 "));
            assert!(starts && line.contains(&format!("source {SOURCE_ID:08x} age ")) && has_label(&line), "{language}: {line}");
            assert!(!line.contains("stale") && !line.contains("no signal"), "{language}: {line}");
        }
    }
    for line in lines(c_subscriber(), &scratch, 3) {
        assert!(line.contains(": 64x48, ") && has_label(&line), "C: {line}");
    }
}

/// The flag is the comparison of two times that every client sees, with the limit that was configured.
#[test]
fn every_client_learns_which_source_a_frame_is_of_and_whether_it_is_stale() {
    for (limit_s, stale) in [(0.0, false), (3600.0, false), (0.000_001, true)] {
        let scratch = Scratch::new();
        let _daemon = daemon(&scratch, "scenes:3", limit_s);
        let mut module = python();
        module.args(["-m", "eomt_edge_client", "--json"]);
        let mut c = c_subscriber();
        c.arg("--json");
        for (language, command) in [("Python", module), ("C", c)] {
            for line in lines(command, &scratch, 3) {
                let frame: Value = serde_json::from_str(&line).expect("JSON");
                let time = |key: &str| frame[key].as_u64().expect("nanoseconds");
                assert!(time("published_ns") - time("captured_ns") > 1000, "a network takes more than a microsecond: {line}");
                assert_eq!((&frame["stale"], &frame["source_id"]), (&json!(stale), &json!(SOURCE_ID)), "{language}, {limit_s} s");
            }
        }
        let mut reader = eomt_edge_client::Subscriber::connect(scratch.socket()).expect("a live daemon");
        let frame = super::next(&mut reader);
        assert_eq!((frame.stale(), frame.source_id()), (stale, SOURCE_ID), "Rust, {limit_s} s");
    }
}
