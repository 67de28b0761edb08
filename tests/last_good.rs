//! Starts that fail until the last good model comes back: real daemons, one after the other.

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prost::Message;
use rustix::process::Signal;
use serde_json::Value;
use tract_onnx::pb::ModelProto;

use common::daemon::{Daemon, PATIENCE, connect, next};
use common::{Scratch, fail, shipped_model};

/// A robot with a model file, and its state directory.
struct Robot {
    scratch: Scratch,
    model: PathBuf,
    state: PathBuf,
    log: PathBuf,
}

impl Robot {
    fn new(name: &str) -> Robot {
        let scratch = Scratch::new(name);
        let [model, state, log] = ["m.onnx", "state", "log"].map(|name| scratch.path(name));
        std::fs::create_dir(&state).expect("made");
        let robot = Robot { scratch, model, state, log };
        robot.install("first");
        robot
    }

    /// The shipped model under another name.
    fn install(&self, name: &str) {
        let mut proto = ModelProto::decode(&std::fs::read(shipped_model()).expect("readable")[..]).expect("an ONNX file");
        proto.metadata_props.iter_mut().find(|entry| entry.key == "name").expect("named").value = name.to_owned();
        self.replace(&proto.encode_to_vec());
    }

    /// As an update does it: a new file under the old name.
    fn replace(&self, bytes: &[u8]) {
        let new = self.scratch.path("new.onnx");
        std::fs::write(&new, bytes).expect("written");
        std::fs::rename(new, &self.model).expect("renamed");
    }

    fn command(&self, source: &str) -> std::process::Command {
        let mut command = common::eomt_edge();
        let socket = self.scratch.path("masks.sock");
        command.args(["run", "--source", source, "--model"]).arg(&self.model);
        command.arg("--set").arg(format!("ring.socket={}", socket.display())).args(["--set", "source.fps=0", "--set", "source.size=64x48"]);
        command.env("STATE_DIRECTORY", format!("{}:/nowhere", self.state.display()));
        command
    }

    fn start(&self, source: &str) -> Daemon {
        let log = std::fs::File::create(&self.log).expect("a log");
        Daemon(self.command(source).stdin(std::process::Stdio::piped()).stderr(log).spawn().expect("starts"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Name and `fallback` of what is served.
    fn serves(&self) -> (String, bool) {
        let mut subscriber = connect(&self.scratch.path("masks.sock"));
        next(&mut subscriber);
        let metadata: Value = serde_json::from_str(subscriber.metadata()).expect("JSON");
        (metadata["name"].as_str().expect("a name").to_owned(), metadata["fallback"].as_bool().expect("a flag"))
    }

    fn state(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.state.join("models.json")).ok()?).ok()
    }

    fn wait_for_state(&self, what: &str, is_there: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(state) = self.state().filter(&is_there) {
                return state;
            }
            assert!(Instant::now() < deadline, "{what}: {:?} {}", self.state(), self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Serves until the model is kept.
    fn prove(&self) {
        let mut daemon = self.start("scenes");
        let digest = eomt_edge_host::files::sha256(&std::fs::read(&self.model).expect("readable"));
        let state = self.wait_for_state("kept", |state| state["good"]["contents"]["model"] == digest.as_str());
        let deadline = Instant::now() + PATIENCE;
        while self.names().len() != 2 {
            assert!(Instant::now() < deadline, "the old copy stays: {:?}", self.names());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((&state["failed_starts"], &state["failed_service"]), (&0.into(), &0.into()));
        stop(&mut daemon);
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.state)
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }
}

fn stop(daemon: &mut Daemon) {
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn after_failed_starts_the_last_good_model_comes_back() {
    let robot = Robot::new("last-good");
    robot.prove();
    robot.replace(b"an update that went wrong");
    for _ in 0..3 {
        let sentence = fail(&mut robot.command("scenes"), 1);
        assert!(sentence.contains("m.onnx"), "{sentence}");
    }
    for _ in 0..2 {
        let mut daemon = robot.start("scenes");
        assert_eq!(robot.serves(), ("first".to_owned(), true));
        let log = robot.log();
        assert!(
            log.contains("ERROR") && log.contains("the last good model runs, not the configured one") && log.contains("m.onnx"),
            "{log}"
        );
        stop(&mut daemon);
    }
    // another update works, and is kept instead; what a copy left that was cut short goes
    std::fs::create_dir(robot.state.join("good-0123456789abcdef.new")).expect("made");
    robot.install("second");
    robot.prove();
    let names = robot.names();
    assert!(names.len() == 2 && names[0].starts_with("good-") && names[1] == "models.json", "{names:?}");
    // the model is not what fails: nothing comes back
    for _ in 0..4 {
        fail(&mut robot.command("replay:/nowhere"), 1);
    }
    let mut daemon = robot.start("scenes");
    assert_eq!(robot.serves(), ("second".to_owned(), false));
    // a reload brings the configured one, too
    robot.replace(b"wrong again");
    daemon.signal(Signal::HUP);
    while !robot.log().contains("reload refused") {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(robot.serves(), ("second".to_owned(), false));
    stop(&mut daemon);
}

/// The trial goes well and the daemon ends all the same, before it has served long enough.
#[test]
fn a_model_that_ends_the_daemon_while_it_serves_is_given_up_too() {
    let robot = Robot::new("last-good-killed");
    robot.prove();
    robot.install("second");
    for _ in 0..3 {
        let mut daemon = robot.start("pipe:-");
        connect(&robot.scratch.path("masks.sock"));
        daemon.signal(Signal::KILL);
        daemon.wait();
    }
    let mut daemon = robot.start("scenes");
    assert_eq!(robot.serves(), ("first".to_owned(), true));
    let log = robot.log();
    assert!(log.contains("the last 3 starts or more with it ended while it served"), "{log}");
    stop(&mut daemon);
    // stops count for nothing
    robot.install("third");
    for _ in 0..4 {
        let mut daemon = robot.start("pipe:-");
        connect(&robot.scratch.path("masks.sock"));
        stop(&mut daemon);
    }
    let mut daemon = robot.start("scenes");
    assert_eq!(robot.serves(), ("third".to_owned(), false));
    stop(&mut daemon);
}

#[test]
fn a_state_of_garbage_stops_no_start() {
    let robot = Robot::new("last-good-garbage");
    let path = robot.state.join("models.json");
    let outside = r#"{"version":1,"of":"","failed_starts":9,"failed_service":9,"good":{"directory":"../..","file":"m.onnx",
        "normalization":"auto","contents":{"model":"","beside":[],"weights":[]}}}"#;
    for garbage in ["", "garbage", "{}", "[1e999]", "{\"version\": 2}", outside, "\u{0}\u{0}"] {
        std::fs::write(&path, garbage).expect("written");
        let mut daemon = robot.start("scenes");
        assert_eq!(robot.serves(), ("first".to_owned(), false), "{garbage}");
        assert!(robot.log().contains("models.json: not used"), "{garbage}: {}", robot.log());
        stop(&mut daemon);
    }
    // nothing that can be read or written there
    for wrong in [Path::new("/proc"), &robot.model] {
        let mut command = robot.command("scenes");
        let log = std::fs::File::create(&robot.log).expect("a log");
        let mut daemon = Daemon(command.env("STATE_DIRECTORY", wrong).stderr(log).spawn().expect("starts"));
        assert_eq!(robot.serves(), ("first".to_owned(), false));
        assert!(robot.log().contains("starts cannot be counted"), "{}", robot.log());
        stop(&mut daemon);
    }
    std::fs::remove_file(&path).expect("there");
    std::fs::create_dir(&path).expect("made");
    let mut daemon = robot.start("scenes");
    assert_eq!(robot.serves(), ("first".to_owned(), false));
    stop(&mut daemon);
}

/// `model.sha256` names the only file that may run, the copy included.
#[test]
fn another_copy_than_the_digest_says_is_not_run() {
    let robot = Robot::new("last-good-digest");
    let first = eomt_edge_host::files::sha256(&std::fs::read(&robot.model).expect("readable"));
    robot.prove();
    let update = b"an update that went wrong";
    robot.replace(update);
    let with = |digest: &str| {
        let mut command = robot.command("scenes");
        command.args(["--set", &format!("model.sha256={digest}")]);
        command
    };
    for _ in 0..5 {
        let sentence = fail(&mut with(&eomt_edge_host::files::sha256(update)), 1);
        assert!(sentence.contains("m.onnx"), "{sentence}");
    }
    for _ in 0..3 {
        fail(&mut with(&first), 1);
    }
    let log = std::fs::File::create(&robot.log).expect("a log");
    let mut daemon = Daemon(with(&first).stderr(log).spawn().expect("starts"));
    assert_eq!(robot.serves(), ("first".to_owned(), true));
    stop(&mut daemon);
}

#[test]
fn a_damaged_copy_is_not_run() {
    let robot = Robot::new("last-good-damaged");
    robot.prove();
    let copy = robot.state.join(&robot.names()[0]).join("m.onnx");
    assert_eq!(std::fs::read(&copy).expect("a copy"), std::fs::read(&robot.model).expect("readable"));
    std::fs::copy(shipped_model(), &copy).expect("another model that runs");
    robot.replace(b"an update that went wrong");
    for _ in 0..5 {
        let sentence = fail(&mut robot.command("scenes"), 1);
        assert!(sentence.contains(&format!("eomt-edge: {}", robot.model.display())), "{sentence}");
    }
}

/// Without a state directory, or when it is not wanted, nothing is written and nothing comes back.
#[test]
fn nothing_is_kept_unasked() {
    let robot = Robot::new("last-good-off");
    let mut command = robot.command("scenes");
    let status = command.args(["--set", "model.fallback_after=0", "--frames", "150"]).stderr(std::process::Stdio::null()).status();
    assert!(status.expect("starts").success());
    assert!(robot.names().is_empty(), "{:?}", robot.names());
}
