//! A candidate model does its worst in a process of its own: real daemons, whose children end, hang and babble as a script decides.
//!
//! The script takes the place of the emulator that `EOMT_EDGE_TEST_RUNNER` names, and starts the real child when it is told to.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use eomt_edge_host::files::sha256;
use eomt_edge_host::model_file::{self, Compute, Expected};
use rustix::process::Signal;

use common::daemon::{Daemon, PATIENCE, connect, next, run};
use common::{Scratch, eomt_edge, fail, shipped_model};

/// What children do from now on.
struct Children {
    script: PathBuf,
    mode: PathBuf,
    pid: PathBuf,
}

impl Children {
    fn new(scratch: &Scratch) -> Children {
        let [script, mode, pid] = ["runner.sh", "mode", "pid"].map(|name| scratch.path(name));
        let real = std::env::var("EOMT_EDGE_TEST_RUNNER").unwrap_or_default();
        let text = format!(
            "#!/bin/sh\n[ \"$2\" = try-model ] || exec {real} \"$@\"\necho $$ > '{pid}'\ncase $(cat '{mode}') in\n\
             abort) echo memory allocation of 17 bytes failed >&2; kill -ABRT $$;;\nstop) kill -STOP $$;;\nflood) exec yes;;\n\
             dumb) exit 0;;\nhang) mkfifo '{pid}.fifo'; exec {real} \"$@\" 0<>'{pid}.fifo';;\n*) exec {real} \"$@\";;\nesac\n",
            pid = pid.display(),
            mode = mode.display()
        );
        std::fs::write(&script, text).expect("written");
        let children = Children { script, mode, pid };
        children.will("go on");
        assert!(Command::new("chmod").arg("755").arg(&children.script).status().expect("chmod").success());
        children
    }

    fn will(&self, mode: &str) {
        std::fs::write(&self.mode, mode).expect("written");
    }

    /// The number of the last child, once there is one.
    fn pid(&self) -> String {
        wait("a child", || std::fs::read_to_string(&self.pid).ok().filter(|text| text.ends_with('\n'))).trim().to_owned()
    }

    fn forget(&self) {
        let _ = std::fs::remove_file(&self.pid);
    }
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_gone(pid: &str) -> Option<()> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with(['Z', 'X'])).then_some(())
}

fn start(scratch: &Scratch, children: &Children, settings: &[&str]) -> (Daemon, PathBuf) {
    let log = scratch.path("log");
    let mut command = run(&scratch.path("masks.sock"), "scenes", settings);
    command.env("EOMT_EDGE_TEST_RUNNER", &children.script).stderr(std::fs::File::create(&log).expect("a log"));
    (Daemon(command.spawn().expect("the daemon starts")), log)
}

/// Waits until the log has `count` lines with `words`; returns the last one.
fn line(log: &Path, words: &str, count: usize) -> String {
    wait(words, || {
        let text = std::fs::read_to_string(log).expect("a log");
        text.lines().filter(|line| line.contains(words)).nth(count - 1).map(str::to_owned)
    })
}

#[test]
fn whatever_a_candidate_does_the_old_model_goes_on() {
    let scratch = Scratch::new("trial");
    let children = Children::new(&scratch);
    let (mut daemon, log) = start(&scratch, &children, &["source.fps=0", "model.load_timeout=2"]);
    let mut subscriber = connect(&scratch.path("masks.sock"));
    next(&mut subscriber);
    let model = shipped_model().display().to_string();
    let cases = [
        ("abort", "signal 6 (SIGABRT): \"memory allocation of 17 bytes failed\""),
        ("flood", "more than 4194304 bytes"),
        ("dumb", "exit code 0 and no answer"),
        ("stop", "longer than 2 s (model.load_timeout)"),
    ];
    for (refused, (mode, words)) in cases.iter().enumerate() {
        children.will(mode);
        children.forget();
        let before = next(&mut subscriber).sequence();
        daemon.signal(Signal::HUP);
        let pid = children.pid();
        // frames go on while the child is there, and after it
        let seen = next(&mut subscriber).sequence();
        assert!(seen > before, "{mode}");
        let sentence = line(&log, "reload refused", refused + 1);
        assert!(sentence.contains(&model) && sentence.contains(words), "{mode}: {sentence}");
        assert!(std::iter::repeat_with(|| next(&mut subscriber)).take(3).all(|frame| frame.sequence() > seen), "{mode}");
        wait("end of the child", || is_gone(&pid));
    }
    children.will("go on");
    daemon.signal(Signal::HUP);
    line(&log, "the configuration was read again", 1);
    let mut subscriber = connect(&scratch.path("masks.sock"));
    assert!(subscriber.metadata().contains("\"fallback\":false"), "{}", subscriber.metadata());
    next(&mut subscriber);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn a_stop_waits_for_no_trial_and_leaves_none() {
    for (during_start, signal) in [(true, Signal::TERM), (true, Signal::KILL), (false, Signal::TERM), (false, Signal::KILL)] {
        let scratch = Scratch::new("trial-stop");
        let children = Children::new(&scratch);
        // the real child, which waits for its request for ever
        children.will(if during_start { "hang" } else { "go on" });
        let (mut daemon, _) = start(&scratch, &children, &[]);
        if !during_start {
            next(&mut connect(&scratch.path("masks.sock")));
            children.will("hang");
            children.forget();
            daemon.signal(Signal::HUP);
        }
        let pid = children.pid();
        daemon.signal(signal);
        // the child's limit is 120 s: a daemon that waited for it would be noticed
        let code = daemon.wait();
        assert!(code == if signal == Signal::TERM { Some(0) } else { None }, "{during_start} {signal:?}: {code:?}");
        wait("end of the child", || is_gone(&pid));
    }
}

#[test]
fn a_start_is_refused_with_a_sentence() {
    let scratch = Scratch::new("trial-start");
    let children = Children::new(&scratch);
    for (mode, words) in [("abort", "signal 6"), ("dumb", "no answer"), ("stop", "longer than 0.5 s")] {
        children.will(mode);
        let mut command = run(&scratch.path("masks.sock"), "scenes", &["model.load_timeout=0.5"]);
        command.env("EOMT_EDGE_TEST_RUNNER", &children.script).stderr(Stdio::piped());
        let sentence = fail(&mut command, 1);
        assert!(sentence.contains("eomt-nano-scenes.onnx") && sentence.contains(words), "{sentence}");
    }
    std::fs::remove_file(&children.script).expect("there");
    let mut command = run(&scratch.path("masks.sock"), "scenes", &[]);
    let sentence = fail(command.env("EOMT_EDGE_TEST_RUNNER", &children.script).stderr(Stdio::piped()), 1);
    assert!(sentence.contains("eomt-nano-scenes.onnx: the process that tries it cannot be started"), "{sentence}");
}

/// The same executable tries models after an upgrade has put another file in its place.
#[test]
fn an_upgraded_program_still_tries_models() {
    let scratch = Scratch::new("upgrade");
    let (program, log) = (scratch.path("eomt-edge"), scratch.path("log"));
    std::fs::copy(env!("CARGO_BIN_EXE_eomt-edge"), &program).expect("copied");
    let mut command = common::command(&program);
    command.args(["run", "--source", "scenes", "--set"]).arg(format!("ring.socket={}", scratch.path("masks.sock").display()));
    command.arg("--model").arg(shipped_model()).stderr(std::fs::File::create(&log).expect("a log"));
    let emulated = std::env::var_os("EOMT_EDGE_TEST_RUNNER").is_some();
    let daemon = Daemon(command.spawn().expect("starts"));
    next(&mut connect(&scratch.path("masks.sock")));
    // an emulator opens the program by its name
    if !emulated {
        std::fs::remove_file(&program).expect("there");
        std::fs::write(&program, "#!/bin/false\n").expect("written");
    }
    daemon.signal(Signal::HUP);
    line(&log, "the configuration was read again", 1);
}

#[test]
fn another_file_than_the_digest_says_is_refused() {
    let scratch = Scratch::new("digest");
    let digest = sha256(&std::fs::read(shipped_model()).expect("readable"));
    let other = "0".repeat(64);
    let mut command = run(&scratch.path("masks.sock"), "scenes", &[&format!("model.sha256={other}")]);
    let sentence = fail(command.stderr(Stdio::piped()), 1);
    assert!(sentence.contains("eomt-nano-scenes.onnx") && sentence.contains(&digest) && sentence.contains(&other), "{sentence}");

    let (config, log) = (scratch.path("config.toml"), scratch.path("log"));
    let write = |digest: &str| {
        let (model, socket) = (shipped_model(), scratch.path("masks.sock"));
        let text = format!("[model]\npath = {model:?}\nsha256 = \"{digest}\"\n[source]\nuri = \"scenes\"\n[ring]\nsocket = {socket:?}\n");
        std::fs::write(&config, text).expect("written");
    };
    write(&digest.to_uppercase());
    let mut command = eomt_edge();
    command.args(["run", "--config"]).arg(&config).stderr(std::fs::File::create(&log).expect("a log"));
    let daemon = Daemon(command.spawn().expect("starts"));
    next(&mut connect(&scratch.path("masks.sock")));
    write(&other);
    daemon.signal(Signal::HUP);
    let sentence = line(&log, "reload refused", 1);
    assert!(sentence.contains(&digest) && sentence.contains(&other), "{sentence}");

    for (digest, words) in [(&other, "PROBLEM"), (&digest, "as model.sha256 says")] {
        write(digest);
        let output = eomt_edge().args(["doctor", "--config"]).arg(&config).output().expect("starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(words) && text.contains(digest.as_str()), "{text}");
    }
}

/// What is loaded is what was tried.
#[test]
fn a_file_that_changes_after_its_trial_is_refused() {
    let scratch = Scratch::new("changed");
    let path = scratch.path("m.onnx");
    std::fs::copy(shipped_model(), &path).expect("copied");
    let load = |tried| model_file::load_expected(&path, &Compute::threads(1), &Expected { sha256: None, tried });
    let contents = load(None).expect("loads").contents;
    assert_eq!(load(Some(contents.clone())).expect("the same file").contents, contents);
    std::fs::write(scratch.path("config.json"), "{}").expect("written");
    let sentence = load(Some(contents.clone())).expect_err("another companion").to_string();
    assert!(sentence.contains("m.onnx: config.json beside it has changed since it was tried"), "{sentence}");
    std::fs::remove_file(scratch.path("config.json")).expect("there");
    std::fs::write(&path, "something else").expect("written");
    let sentence = load(Some(contents)).expect_err("another file").to_string();
    assert!(sentence.contains("m.onnx: the file itself has changed since it was tried"), "{sentence}");
}
