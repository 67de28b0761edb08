//! What reaches a person is one sentence of printable characters, however hostile the names and values in it are.

mod common;

use std::process::{Command, Output, Stdio};

use common::{Scratch, data, eomt_edge, shipped_model};

/// 5,000 characters: a colour, the title of the terminal, a faked second line, a bell, C1 controls, text that is written backwards.
fn hostile() -> String {
    let unit = "ab\u{1b}[31m\u{1b}]0;title\u{7}\r\neomt-edge: fake\u{9b}2J\u{85}\u{202e}gnp.exe\u{2066}\u{2029}\u{8}\u{7f} ";
    let long: String = unit.chars().cycle().take(5000).collect();
    format!("subject{long}")
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the program starts")
}

fn is_printable(text: &str) -> bool {
    let turns = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().all(|c| c == '\n' || !(c.is_control() || turns(c)))
}

/// Standard error of a command that must fail with one clean sentence; what else it said are clean lines too.
fn one_sentence(command: &mut Command, subject: &str) -> String {
    let output = run(command);
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {said:?}", output.status);
    assert_eq!(said.lines().count(), 1, "{said:?}");
    assert!(is_printable(&said), "{said:?}");
    assert!(said.chars().count() <= 1200, "{} characters: {said}", said.chars().count());
    assert!(said.starts_with("eomt-edge: ") && said.contains(subject) && !said.contains("bug in"), "{said}");
    assert!(is_printable(&String::from_utf8(output.stdout).expect("UTF-8")));
    said
}

fn command(words: &[&str]) -> Command {
    let mut command = eomt_edge();
    command.args(words);
    command
}

#[test]
fn arguments() {
    let scratch = Scratch::new("messages");
    let (bad, out) = (hostile(), scratch.path("out").to_string_lossy().into_owned());
    let long = "subject".repeat(700); // without a character that could be refused for itself
    let (nano, model) = (data("nano").to_string_lossy().into_owned(), shipped_model().to_string_lossy().into_owned());
    for bad in [&bad, &long] {
        let option = format!("--{bad}");
        let pair = format!("model.{bad}=1");
        let value = format!("source.uri={bad}");
        let cases: [&[&str]; 22] = [
            &[bad],
            &["run", &option],
            &["run", "--config", bad],
            &["run", "--model", bad],
            &["run", "--check", "--model", bad],
            &["run", "--set", bad],
            &["run", "--set", &pair],
            &["run", "--set", &value],
            &["run", "--source", bad],
            &["run", "--frames", bad],
            &["convert", bad, "-o", &out],
            &["convert", &nano, "-o", bad],
            &["convert", &nano, "-o", &out, "--hints", bad],
            &["convert", &nano, "-o", &out, "--stuff", bad],
            &["convert", &nano, "-o", &out, "--size", bad],
            &["convert", &nano, "-o", &out, "--precision", "int8", "--calibrate", bad],
            &["segment", "--model", &model, bad, "-o", &out],
            &["segment", "--model", bad, &nano, "-o", &out],
            &["evaluate", "--model", &model, "--class-maps", bad, "--images", &nano],
            &["evaluate", "--model", &model, "--instances", bad, "--images", &nano],
            &["view", "--timeout", "1", "--socket", bad],
            &["view", "--timeout", bad],
        ];
        for case in cases {
            one_sentence(&mut command(case), "subject");
        }
    }
    assert!(scratch.names().is_empty());
}

#[test]
fn usage_keeps_its_advice() {
    let said = one_sentence(&mut command(&["convert", "--siez", "64"]), "--siez");
    assert!(
        said.contains("'--siez' found; tip: a similar argument exists: '--size'") && said.contains("eomt-edge convert --help"),
        "{said}"
    );
    let said = one_sentence(&mut command(&["segment"]), "--model");
    let value = one_sentence(&mut command(&["run", "--frames", "x"]), "--frames");
    assert!(value.contains("eomt-edge run --help"), "{value}");
    assert!(said.contains("required") && said.contains("eomt-edge segment --help"), "{said}");
    // the help is as it was
    let output = run(&mut command(&["convert", "--help"]));
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).lines().count() > 10);
    let output = run(&mut command(&[]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Usage: eomt-edge"));
}

/// A sentence about a file of text, which is written to `name`.
fn about(scratch: &Scratch, name: &str, text: &str, words: &[&str], more: &[&str], subject: &str) -> String {
    let path = scratch.path(name);
    std::fs::write(&path, text).unwrap();
    one_sentence(command(words).arg(path).args(more), subject)
}

#[test]
fn keys_and_values_of_files() {
    let scratch = Scratch::new("message-files");
    let (bad, out) = (hostile(), scratch.path("out").to_string_lossy().into_owned());
    let nano = data("nano").to_string_lossy().into_owned();
    let json = serde_json::Value::from(bad.as_str()).to_string(); // quoted; TOML reads most of it too
    let toml = toml::Value::from(bad.as_str()).to_string();
    for text in [format!("[model]\n{toml} = 1\n"), format!("[source]\nuri = {toml}\n"), format!("[model]\ntask = {toml}\n"), bad.clone()] {
        about(&scratch, "c.toml", &text, &["run", "--config"], &[], "configuration");
    }
    for text in [format!("{{{json}: 1}}"), format!("{{\"task\": {json}}}"), format!("{{\"labels\": {json}}}"), bad.clone()] {
        about(&scratch, "hints.json", &text, &["convert", &nano, "-o", &out, "--hints"], &[], "hints.json");
    }
    let model = shipped_model().to_string_lossy().into_owned();
    let category = format!(
        "{{\"images\": [{{\"id\": {json}, \"file_name\": {json}}}], \"annotations\": [], \"categories\": [{{\"id\": 1, \"name\": {json}}}]}}"
    );
    about(&scratch, "a.json", &category, &["evaluate", "--model", &model, "--images", &nano, "--instances"], &[], "a.json");
    let names = format!("train: x\nnames: [{json}]\nnc: 2\n");
    about(&scratch, "data.yaml", &names, &["evaluate", "--model", &model, "--yolo"], &[], "data.yaml");
    let header = format!("{{{json}: {{\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}}}");
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
    std::fs::write(scratch.path("w.safetensors"), bytes).unwrap();
    one_sentence(command(&["convert", "-o", &out]).arg(scratch.path("w.safetensors")), "w.safetensors");
}

#[test]
fn names_of_files() {
    let scratch = Scratch::new("message-names");
    let name = format!("subject\u{1b}[2J\u{202e}\n{}.onnx", "n".repeat(200));
    let path = scratch.path(&name);
    std::fs::write(&path, "no model").unwrap();
    let said = one_sentence(command(&["run", "--check", "--model"]).arg(&path), "subject\\u001b[2J\\u202e nn");
    assert!(said.contains(".onnx"), "the end of a name tells its kind: {said}");
    // doctor goes on, and names it on standard output
    let output = run(command(&["doctor", "--config", "/nowhere", "--model"]).arg(&path));
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(is_printable(&said) && said.contains("\\u001b[2J\\u202e nn"), "{said:?}");
}

#[test]
fn log_lines() {
    let scratch = Scratch::new("message-log");
    let folder = scratch.path("subject\u{1b}[2J\u{202e}\nfake");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(data("jpeg").join("baseline.jpg"), folder.join("a.jpg")).unwrap();
    std::fs::write(folder.join("b\u{1b}.png"), "no picture").unwrap();
    let source = format!("replay:{}", folder.display());
    let socket = format!("ring.socket={}", scratch.path("s.sock").display());
    let output =
        run(command(&["run", "--frames", "2", "--set", "source.fps=0", "--set", &socket, "--source", &source, "--model"])
            .arg(shipped_model()));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success() && is_printable(&said) && said.contains("subject\\u001b[2J\\u202e fake"), "{said:?}");
    assert!(said.lines().all(|line| line.starts_with('[')), "a line that the log did not write: {said}");
}

#[test]
fn nothing_speaks_of_backtraces() {
    // where nobody reads the sentence, the exit code stays
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    for words in [&["convert", "/nowhere", "-o", "/nowhere/x"][..], &["run", "--source", "replay:/nowhere"]] {
        let status = command(words).stderr(full()).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{words:?}");
    }
    for words in [&["run", "--model", "/nowhere"][..], &["convert", "/nowhere", "-o", "/nowhere/x"]] {
        let said = one_sentence(&mut command(words), "/nowhere");
        assert!(!said.contains("RUST_BACKTRACE") && !said.contains("panicked"), "{said}");
    }
}
