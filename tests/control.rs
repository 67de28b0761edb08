//! The control socket of a real daemon: what it says, what it changes, and what clients cannot do to it.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use eomt_edge_client::{ClientError, MaskFrame, Subscriber};
use eomt_edge_host::files::sha256;
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use common::daemon::{Daemon, PATIENCE, connect, next, run};
use common::{Scratch, eomt_edge, fail, pytorch_model, shipped_model, succeed};

/// A daemon with a control socket.
struct Controlled {
    daemon: Daemon,
    scratch: Scratch,
}

impl Controlled {
    fn start(name: &str, settings: &[&str]) -> Controlled {
        let scratch = Scratch::new(name);
        Controlled::start_in(scratch, "scenes:3", settings)
    }

    fn start_in(scratch: Scratch, source: &str, settings: &[&str]) -> Controlled {
        std::fs::create_dir_all(scratch.path("models")).expect("writable");
        let daemon = Daemon(Controlled::command(&scratch, source, settings).spawn().expect("the daemon starts"));
        let controlled = Controlled { daemon, scratch };
        next(&mut controlled.subscriber());
        controlled
    }

    fn command(scratch: &Scratch, source: &str, settings: &[&str]) -> Command {
        let mut command = run(&scratch.path("masks.sock"), source, settings);
        command.arg("--set").arg(format!("control.socket={}", scratch.path("control.sock").display()));
        command.arg("--set").arg(format!("control.models={}", scratch.path("models").display()));
        command
    }

    fn subscriber(&self) -> Subscriber {
        connect(&self.scratch.path("masks.sock"))
    }

    fn client(&self) -> Client {
        Client::connect(self.scratch.path("control.sock"))
    }

    /// Its status, unless all places are taken.
    fn status(&self) -> Option<Value> {
        let mut client = self.client();
        let _ = client.0.get_mut().write_all(b"{\"do\":\"status\"}\n"); // it may have hung up already
        client.receive().filter(|answer| answer["ok"] == true)
    }

    /// Copies the shipped model into `control.models`.
    fn model(&self, name: &str) -> PathBuf {
        let path = self.scratch.path("models").join(name);
        std::fs::copy(shipped_model(), &path).expect("copied");
        path
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    /// The daemon opens it after the ring.
    fn connect(path: PathBuf) -> Client {
        let stream = wait("control socket", || UnixStream::connect(&path).ok());
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Client(BufReader::new(stream))
    }

    fn send(&mut self, line: impl AsRef<[u8]>) {
        let stream = self.0.get_mut();
        stream.write_all(line.as_ref()).and_then(|()| stream.write_all(b"\n")).expect("the daemon reads");
    }

    /// The next answer; `None` at the end of the connection.
    fn receive(&mut self) -> Option<Value> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).expect("an answer in time");
        if line.is_empty() {
            return None;
        }
        assert!(line.len() <= 65_536 && line.ends_with(b"\n"), "a line of {} bytes", line.len());
        Some(serde_json::from_slice(&line).expect("JSON"))
    }

    fn ask(&mut self, request: Value) -> Value {
        self.send(request.to_string());
        self.receive().expect("an answer")
    }

    fn ok(&mut self, request: Value) -> Value {
        let answer = self.ask(request);
        assert_eq!(answer["ok"], true, "{answer}");
        answer
    }

    fn refused(&mut self, request: Value) -> String {
        let answer = self.ask(request);
        assert_eq!(answer["ok"], false, "{answer}");
        let sentence = answer["error"].as_str().expect("a sentence").to_owned();
        assert!(!sentence.is_empty() && !sentence.contains(char::is_control), "{sentence:?}");
        sentence
    }

    fn status(&mut self) -> Value {
        self.ok(json!({ "do": "status" }))
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

/// The clock of frames.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The first frame that was published after now, of this ring or of the one that takes its place.
fn frame_from_now(controlled: &Controlled, subscriber: &mut Subscriber) -> MaskFrame {
    let now = now_ns();
    loop {
        match subscriber.next(Some(PATIENCE)) {
            Ok(Some(frame)) if frame.info.published_ns > now && !frame.no_signal() => return frame,
            Ok(Some(_)) => {}
            Ok(None) => panic!("no frame"),
            Err(ClientError::Ended { .. }) => *subscriber = controlled.subscriber(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn status_says_what_the_ring_and_the_file_say() {
    let controlled = Controlled::start("control-status", &["model.threads=2", "model.threshold=0.61"]);
    let (b, a) = (controlled.model("b.onnx"), controlled.model("a.onnx"));
    std::fs::write(a.with_extension("txt"), "no model").expect("written");
    std::os::unix::fs::symlink("/etc/hostname", b.with_file_name("link.onnx")).expect("linked");
    let mut subscriber = controlled.subscriber();
    let status = controlled.client().status();
    let metadata: Value = serde_json::from_str(subscriber.metadata()).expect("JSON");
    for key in ["name", "task", "labels"] {
        assert_eq!(status["model"][key], metadata[key], "{key}");
    }
    assert_eq!(status["pid"], metadata["pid"]);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["model"]["sha256"], sha256(&std::fs::read(shipped_model()).expect("readable")));
    assert_eq!(status["model"]["path"], shipped_model().display().to_string());
    assert_eq!((&status["model"]["fallback"], &status["model"]["configured"]), (&json!(false), &json!(true)));
    assert_eq!(status["model"]["classes"], subscriber.labels().len());
    assert_eq!((&status["thresholds"]["threshold"], &status["threads"]), (&json!(0.61), &json!(2)));
    assert_eq!((&status["source"]["uri"], &status["source"]["no_signal"]), (&json!("scenes:3"), &json!(false)));
    assert_eq!(status["models"], json!(["a.onnx", "b.onnx"]));
    assert!(status["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{status}");
    // frames go on between the two
    let before = status["frames"].as_u64().expect("a number");
    frame_from_now(&controlled, &mut subscriber);
    let after = controlled.client().status()["frames"].as_u64().expect("a number");
    assert!(0 < before && before < after && after <= subscriber.next(Some(PATIENCE)).expect("live").expect("a frame").sequence());
}

#[test]
fn thresholds_change_the_next_frames() {
    let controlled = Controlled::start("control-thresholds", &["source.fps=0"]);
    let (mut client, mut subscriber) = (controlled.client(), controlled.subscriber());
    let before = client.status()["thresholds"].clone();
    let score = |frame: &MaskFrame| frame.segments.iter().map(|row| row.score).fold(1.0, f32::min);
    // segments come and go with the scene: the worst of a frame is below what is asked for next
    let worst = score(&wait("segments", || Some(frame_from_now(&controlled, &mut subscriber)).filter(|frame| !frame.segments.is_empty())));
    let wanted = (f64::from(worst) + 1.0) / 2.0;
    let answer = client.ok(json!({ "do": "thresholds", "set": { "threshold": wanted } }));
    assert_eq!(answer["thresholds"]["threshold"], wanted);
    assert_eq!(answer["thresholds"]["mask_threshold"], before["mask_threshold"], "what was not named stays");
    assert!(answer["lasts"].as_str().is_some_and(|lasts| lasts.contains("restart")), "{answer}");
    for _ in 0..10 {
        let frame = frame_from_now(&controlled, &mut subscriber);
        assert!(f64::from(score(&frame)) >= wanted, "{:?}", frame.segments);
    }
    // a panoptic segment needs more than this, and no score is more than 1
    client.ok(json!({ "do": "thresholds", "set": { "threshold": 1, "overlap_threshold": 0.25 } }));
    assert_eq!(frame_from_now(&controlled, &mut subscriber).segments.len(), 0);
    assert_eq!(client.status()["thresholds"]["overlap_threshold"], 0.25);
    // nothing of it is there after a reload
    client.ok(json!({ "do": "reload" }));
    assert_eq!(client.status()["thresholds"], before);
    wait("segments", || Some(frame_from_now(&controlled, &mut subscriber)).filter(|frame| !frame.segments.is_empty()));
}

#[test]
fn what_is_no_request_is_refused_by_name() {
    let controlled = Controlled::start("control-refused", &[]);
    let mut client = controlled.client();
    let deep = "[".repeat(60_000);
    for (line, words) in [
        ("", "JSON object"),
        ("GET / HTTP/1.1\r", "JSON object"),
        (r#"{"do":"status""#, "EOF"),
        (r#"{"do":"exec","command":"id"}"#, "`exec`"),
        (r#"{"do":"status","now":1}"#, "`now`"),
        (r#"{"do":"reload","config":"/tmp/x"}"#, "`config`"),
        (r#"{"do":"thresholds","set":{"treshold":0.5}}"#, "`treshold`"),
        (r#"{"do":"thresholds","set":{"threshold":1.01}}"#, "set.threshold = 1.01"),
        (r#"{"do":"thresholds","set":{}}"#, "no threshold"),
        ("{\"do\":\"\u{1b}[2J\"}", "control character"),
        (&format!("{{\"x\":{deep}"), "recursion"),
    ] {
        client.send(line);
        let answer = client.receive().expect("it goes on");
        let sentence = answer["error"].as_str().unwrap_or_default();
        assert!(answer["ok"] == false && sentence.contains(words) && !sentence.contains(char::is_control), "{words}: {answer}");
    }
    client.send(b"{\"do\":\"\xff\"}");
    assert_eq!(client.receive().expect("it goes on")["ok"], false);
    // lines in a heap are answered in their order
    client.send("{\"do\":\"status\"}\n{\"do\":\"nothing\"}\n{\"do\":\"log\"}");
    let answers: Vec<Value> = std::iter::repeat_with(|| client.receive().expect("an answer")).take(3).collect();
    assert!(answers[0]["pid"].is_u64() && answers[1]["ok"] == false && answers[2]["lines"].is_array(), "{answers:?}");
    // a line without an end is the last one
    for bytes in [vec![b'{'; 70_000], [b"{\"do\":\"".to_vec(), vec![b'x'; 65_529]].concat()] {
        let mut client = controlled.client();
        let _ = client.0.get_mut().write_all(&bytes); // the daemon may hang up before it has all
        let answer = client.receive().expect("a last word");
        assert!(answer["ok"] == false && answer["error"].as_str().is_some_and(|error| error.contains("65536")), "{answer}");
        assert!(matches!(client.0.read(&mut [0; 1]), Ok(0) | Err(_)), "it hangs up");
    }
    // who hangs up in between is forgotten
    for _ in 0..50 {
        let _ = controlled.client().0.get_mut().write_all(b"{\"do\":\"status\"}\n{\"do\":"); // or it is refused
    }
    wait("place", || controlled.status());
}

#[test]
fn clients_that_never_read_hold_nobody_up() {
    let controlled = Controlled::start("control-slow", &["source.fps=0"]);
    let mut subscriber = controlled.subscriber();
    // answers are longer than requests: the daemon's buffers and theirs fill up
    let mut slow: Vec<Client> = (0..6).map(|_| controlled.client()).collect();
    for client in &mut slow {
        let stream = client.0.get_mut();
        stream.set_nonblocking(true).expect("a socket");
        let mut sent = 0;
        while sent < 4 << 20 {
            match stream.write(b"{\"do\":\"log\"}\n{\"do\":\"status\"}\n") {
                Ok(count) => sent += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(sent < 4 << 20, "somebody keeps what nobody reads");
    }
    let mut client = controlled.client();
    for _ in 0..10 {
        client.status();
        frame_from_now(&controlled, &mut subscriber);
    }
    let memory = client.status()["memory_bytes"].as_u64().expect("a number");
    for _ in 0..30 {
        frame_from_now(&controlled, &mut subscriber);
    }
    let later = client.status()["memory_bytes"].as_u64().expect("a number");
    assert!(later < memory + (8 << 20), "from {memory} to {later} bytes");
}

#[test]
fn there_are_eight_places() {
    let mut controlled = Controlled::start("control-many", &[]);
    let mut clients: Vec<Client> = (0..8).map(|_| controlled.client()).collect();
    clients.iter_mut().for_each(|client| drop(client.status()));
    let mut ninth = controlled.client();
    let answer = ninth.receive().expect("it is told why");
    assert!(answer["ok"] == false && answer["error"].as_str().is_some_and(|error| error.contains("8 connections")), "{answer}");
    assert_eq!(ninth.receive(), None);
    // a place that is given up is free
    clients.pop();
    wait("place", || controlled.status());
    next(&mut controlled.subscriber());
    controlled.daemon.signal(Signal::TERM);
    assert_eq!(controlled.daemon.wait(), Some(0), "connections do not delay the end");
}

#[test]
fn another_model_runs_until_a_reload() {
    let scratch = Scratch::new("control-model");
    let nano = pytorch_model(&scratch);
    let controlled = Controlled::start_in(scratch, "scenes:3", &["source.fps=0"]);
    std::fs::copy(&nano, controlled.scratch.path("models").join("nano.onnx")).expect("copied");
    let (mut client, mut subscriber) = (controlled.client(), controlled.subscriber());
    let configured = client.status()["model"].clone();
    client.ok(json!({ "do": "thresholds", "set": { "threshold": 0.99 } }));
    let answer = client.ok(json!({ "do": "model", "name": "nano.onnx" }));
    let digest = sha256(&std::fs::read(&nano).expect("readable"));
    assert_eq!((&answer["model"]["sha256"], &answer["model"]["precision"]), (&json!(digest), &json!("f32")));
    assert!(answer["lasts"].as_str().is_some_and(|lasts| lasts.contains("restart")), "{answer}");
    let status = client.status();
    assert_eq!(status["model"], answer["model"]);
    assert_eq!((&status["model"]["configured"], &status["thresholds"]["threshold"]), (&json!(false), &json!(0.5)), "the file's own");
    // readers find a ring of that model
    let frame = frame_from_now(&controlled, &mut subscriber);
    let hex: String = frame.info.model_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(digest.starts_with(&hex), "{digest} {hex}");
    client.ok(json!({ "do": "reload" }));
    assert_eq!(client.status()["model"], configured);
    frame_from_now(&controlled, &mut subscriber);
}

#[test]
fn no_name_leads_to_a_model_that_may_not_run() {
    let controlled = Controlled::start("control-paths", &["source.fps=0"]);
    let models = controlled.scratch.path("models");
    controlled.model("sound.onnx");
    std::fs::copy(shipped_model(), controlled.scratch.path("outside.onnx")).expect("copied");
    std::fs::write(models.join("bad.onnx"), "no network").expect("written");
    std::fs::create_dir(models.join("folder.onnx")).expect("made");
    std::os::unix::fs::symlink("../outside.onnx", models.join("out.onnx")).expect("linked");
    std::os::unix::fs::symlink(shipped_model(), models.join("away.onnx")).expect("linked");
    assert!(Command::new("mkfifo").arg(models.join("fifo.onnx")).status().expect("mkfifo").success());
    let (mut client, mut subscriber) = (controlled.client(), controlled.subscriber());
    let before = client.status()["model"].clone();
    let outside = controlled.scratch.path("outside.onnx").display().to_string();
    let long = format!("{}.onnx", "x".repeat(300));
    for (name, words) in [
        ("", "control.models"),
        ("..", "control.models"),
        ("../outside.onnx", "control.models"),
        ("./sound.onnx", "control.models"),
        ("sub/../sound.onnx", "control.models"),
        (&outside, "control.models"),
        ("sound.onnx\0", "control.models"),
        ("sound", "control.models"),
        (&long, "control.models"),
        ("none.onnx", "No such file"),
        ("out.onnx", "leads out of"),
        ("away.onnx", "leads out of"),
        ("folder.onnx", "not a regular file"),
        ("fifo.onnx", "not a regular file"),
        ("bad.onnx", "bad.onnx"),
    ] {
        let sentence = client.refused(json!({ "do": "model", "name": name }));
        assert!(sentence.contains(words), "{name:?}: {sentence}");
        assert_eq!(client.status()["model"], before, "{name:?}");
        frame_from_now(&controlled, &mut subscriber);
    }
    let log = client.ok(json!({ "do": "log" }));
    let texts: Vec<&str> = log["lines"].as_array().expect("lines").iter().filter_map(|line| line["text"].as_str()).collect();
    assert!(texts.iter().any(|text| text.contains("model refused, the old one stays") && text.contains("bad.onnx")), "{texts:?}");
    client.ok(json!({ "do": "model", "name": "sound.onnx" }));
}

#[test]
fn only_the_file_of_the_digest_runs_and_without_a_directory_none() {
    let digest = sha256(&std::fs::read(shipped_model()).expect("readable"));
    let scratch = Scratch::new("control-digest");
    let nano = pytorch_model(&scratch);
    let controlled = Controlled::start_in(scratch, "scenes", &[&format!("model.sha256={digest}")]);
    std::fs::copy(&nano, controlled.scratch.path("models").join("nano.onnx")).expect("copied");
    let mut client = controlled.client();
    assert!(client.refused(json!({ "do": "model", "name": "nano.onnx" })).contains("model.sha256"));
    assert_eq!(client.status()["model"]["sha256"], digest);

    let scratch = Scratch::new("control-no-models");
    let (masks, socket) = (scratch.path("masks.sock"), scratch.path("control.sock"));
    let _daemon = Daemon(run(&masks, "scenes", &[&format!("control.socket={}", socket.display())]).spawn().expect("starts"));
    let mut client = Client::connect(socket);
    assert_eq!(client.status()["models"], json!([]));
    assert!(client.refused(json!({ "do": "model", "name": "eomt-nano-scenes.onnx" })).contains("control.models names no directory"));
}

#[test]
fn a_reload_answers_when_it_is_done() {
    let scratch = Scratch::new("control-reload");
    let config = scratch.path("config.toml");
    let write = |threshold: &str| {
        let (model, masks, control) = (shipped_model(), scratch.path("masks.sock"), scratch.path("control.sock"));
        let text = format!(
            "[model]\npath = {model:?}\nthreshold = {threshold}\n[source]\nuri = \"scenes\"\n[ring]\nsocket = {masks:?}\n\
             [control]\nsocket = {control:?}\n"
        );
        std::fs::write(&config, text).expect("written");
    };
    write("0.7");
    let _daemon = Daemon(eomt_edge().args(["run", "--config"]).arg(&config).stderr(Stdio::null()).spawn().expect("starts"));
    let mut client = Client::connect(scratch.path("control.sock"));
    assert_eq!(client.status()["thresholds"]["threshold"], 0.7);
    write("7");
    let sentence = client.refused(json!({ "do": "reload" }));
    assert!(sentence.contains("model.threshold = 7"), "{sentence}");
    assert_eq!(client.status()["thresholds"]["threshold"], 0.7);
    write("0.6");
    client.ok(json!({ "do": "reload" }));
    assert_eq!(client.status()["thresholds"]["threshold"], 0.6);
}

/// The script takes the place of the emulator that starts children, and stops the one that tries a model while a file is there.
#[test]
fn one_model_is_tried_at_a_time_and_the_rest_goes_on() {
    let scratch = Scratch::new("control-busy");
    let [script, hang, hung] = ["runner.sh", "hang", "hung"].map(|name| scratch.path(name));
    let real = std::env::var("EOMT_EDGE_TEST_RUNNER").unwrap_or_default();
    let text = format!(
        "#!/bin/sh\n[ \"$2\" = try-model ] && [ -e '{}' ] && touch '{}' && kill -STOP $$\nexec {real} \"$@\"\n",
        hang.display(),
        hung.display()
    );
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::create_dir(scratch.path("models")).expect("made");
    let mut command = Controlled::command(&scratch, "scenes", &["source.fps=0", "model.load_timeout=6"]);
    let daemon = Daemon(command.env("EOMT_EDGE_TEST_RUNNER", &script).spawn().expect("starts"));
    let controlled = Controlled { daemon, scratch };
    controlled.model("other.onnx");
    let (mut first, mut second, mut subscriber) = (controlled.client(), controlled.client(), controlled.subscriber());
    assert_eq!(second.status()["loading"], false);
    std::fs::write(&hang, "").expect("written");
    first.send(json!({ "do": "model", "name": "other.onnx" }).to_string());
    wait("trial", || hung.exists().then_some(()));
    assert_eq!(second.status()["loading"], true);
    for request in [json!({ "do": "reload" }), json!({ "do": "model", "name": "other.onnx" })] {
        assert!(second.refused(request).contains("a model is being loaded already"));
    }
    second.ok(json!({ "do": "thresholds", "set": { "threshold": 1 } }));
    assert_eq!(frame_from_now(&controlled, &mut subscriber).segments.len(), 0);
    let answer = first.receive().expect("an answer");
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("longer than 6 s (model.load_timeout)")), "{answer}");
    assert_eq!((&second.status()["loading"], &second.status()["thresholds"]["threshold"]), (&json!(false), &json!(1.0)));
}

#[test]
fn the_log_is_told_without_secrets() {
    // a source that talks: with a password in its command, and in what it says
    let script = "echo opening rtsp://me:geheim@camera/1?token=geheim >&2; exec cat /dev/zero";
    let source = format!("exec:TOKEN=geheim sh -c '{script}' geheim");
    let controlled = Controlled::start_in(Scratch::new("control-log"), &source, &["source.size=64x48", "source.fps=0"]);
    let mut client = controlled.client();
    assert_eq!(client.status()["source"]["uri"], "exec:sh ...");
    let (mut after, mut texts) = (0, Vec::new());
    wait("line of the command", || {
        let answer = client.ok(json!({ "do": "log", "after": after }));
        after = answer["next"].as_u64().expect("a number");
        for line in answer["lines"].as_array().expect("lines") {
            assert!(line["n"].as_u64().is_some_and(|number| number >= 1 && number <= after), "{line}");
            assert!(line["time"].as_f64().is_some_and(|time| time > 1.7e9), "{line}");
            assert!(["error", "warn", "info"].contains(&line["level"].as_str().expect("a word")), "{line}");
            texts.push(line["text"].as_str().expect("text").to_owned());
        }
        texts.iter().any(|text| text.contains("opening rtsp://***@camera/1?***")).then_some(())
    });
    assert!(texts.iter().any(|text| text.starts_with("frames: ") && text.ends_with("from exec:sh ...")), "{texts:?}");
    assert!(texts.iter().any(|text| text.starts_with("control: ")), "{texts:?}");
    assert!(texts.iter().all(|text| !text.contains("geheim")), "{texts:?}");
    assert_eq!(client.ok(json!({ "do": "log", "after": after }))["next"].as_u64(), Some(after), "read on");
    assert!(!client.ok(json!({ "do": "log", "after": u64::MAX }))["lines"].as_array().expect("lines").is_empty(), "of another daemon");
}

#[test]
fn the_socket_has_its_mode_and_one_daemon() {
    let mut controlled = Controlled::start("control-socket", &["control.mode=0620"]);
    let (socket, masks) = (controlled.scratch.path("control.sock"), controlled.scratch.path("masks.sock"));
    let mode = |path: &PathBuf| std::fs::symlink_metadata(path).expect("a socket").mode();
    controlled.client().status();
    assert_eq!((mode(&socket) & 0o777, mode(&masks) & 0o777), (0o620, 0o660));
    let second = controlled.scratch.path("second.sock");
    let mut command = run(&second, "scenes", &[&format!("control.socket={}", socket.display())]);
    let sentence = fail(command.stderr(Stdio::piped()), 1);
    assert!(sentence.contains("control.sock is taken by a running daemon"), "{sentence}");
    assert!(!second.exists(), "it leaves no mask socket behind");
    controlled.client().status();
    // somebody removes the file: it is made again
    std::fs::remove_file(&socket).expect("there");
    controlled.client().status();
    controlled.daemon.signal(Signal::KILL);
    controlled.daemon.wait();
    wait("end of both sockets", || (!socket.exists() && !masks.exists()).then_some(()));
    // without one there is none
    let daemon = common::daemon::start(&masks, "scenes", &[]);
    next(&mut connect(&masks));
    assert!(!socket.exists());
    drop(daemon);
}

#[test]
fn a_wrong_group_or_directory_ends_the_start() {
    let scratch = Scratch::new("control-wrong");
    for (setting, code, words) in [
        (format!("control.socket={}", scratch.path("none/control.sock").display()), 1, "control.socket: the directory"),
        (format!("control.socket={}", scratch.root().display()), 1, "is no socket"),
        ("control.models=models".to_owned(), 2, "control.models"),
        ("control.mode=888".to_owned(), 2, "control.mode"),
    ] {
        let mut command = run(&scratch.path("masks.sock"), "scenes", &[&setting]);
        let sentence = fail(command.stderr(Stdio::piped()), code);
        assert!(sentence.contains(words), "{setting}: {sentence}");
        assert!(!scratch.path("masks.sock").exists());
    }
    let socket = format!("control.socket={}", scratch.path("control.sock").display());
    let mut command = run(&scratch.path("masks.sock"), "scenes", &[&socket, "control.group=no-such-group"]);
    assert!(fail(command.stderr(Stdio::piped()), 1).contains("control.socket: the group 'no-such-group'"));
}

#[test]
fn the_command_asks_for_a_person() {
    let controlled = Controlled::start("control-command", &[]);
    controlled.model("other.onnx");
    controlled.client(); // it listens
    let control = |arguments: &[&str]| {
        let mut command = eomt_edge();
        command.arg("control").args(arguments).arg("--socket").arg(controlled.scratch.path("control.sock"));
        command
    };
    let said = |arguments: &[&str]| String::from_utf8(succeed(&mut control(arguments)).stdout).expect("UTF-8");
    let text = said(&["status"]);
    for words in ["scenes:3", "eomt-nano-scenes.onnx", "threshold 0.", "other.onnx", "sha256"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let status: Value = serde_json::from_str(&said(&["status", "--json"])).expect("JSON");
    assert_eq!(status["models"], json!(["other.onnx"]));
    assert!(said(&["thresholds", "--threshold", "0.55"]).contains("threshold 0.55"));
    assert_eq!(controlled.client().status()["thresholds"]["threshold"], 0.55);
    assert!(said(&["log"]).contains("masks: "));
    assert!(said(&["model", "other.onnx"]).contains("other.onnx ("));
    assert!(said(&["status"]).contains("chosen at the control socket"));
    assert_eq!(said(&["reload"]), "reloaded\n");
    assert!(fail(&mut control(&["model", "../x.onnx"]), 1).contains("control.models"));
    assert!(fail(&mut control(&["thresholds", "--threshold", "1.5"]), 1).contains("set.threshold = 1.5"));
    assert!(fail(&mut control(&["thresholds"]), 1).contains("no threshold"));
    let mut nobody = eomt_edge();
    nobody.args(["control", "status", "--socket"]).arg(controlled.scratch.path("nobody.sock"));
    assert!(fail(&mut nobody, 1).contains("nobody.sock: nobody can be asked there"));
    // what listens there is no daemon of ours
    let mut masks = eomt_edge();
    masks.args(["control", "status", "--socket"]).arg(controlled.scratch.path("masks.sock"));
    assert!(fail(&mut masks, 1).contains("masks.sock"));
}
