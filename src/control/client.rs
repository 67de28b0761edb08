//! The command `control`: asks a running daemon and prints what it answers.
//!
//! Invariants: an answer comes within the timeout or is an error; nothing of the daemon's moves a terminal's cursor.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use eomt_edge_host::output::{say, sentence};
use serde_json::{Map, Value, json};

use super::request::LINE_BYTES_MAX;

/// What a daemon is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// How it is.
    Status,
    /// Lines of its log after the one of this number.
    Log(u64),
    /// Thresholds by the names of their keys.
    Thresholds(Vec<(&'static str, f64)>),
    /// To read its configuration again.
    Reload,
    /// To switch to this file.
    Model(String),
}

/// What `control` can be told.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The daemon's own lines, instead of words for people.
    pub json: bool,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Asks, and prints the answer.
///
/// # Errors
/// When nobody answers in time, or the daemon refuses: its own sentence.
pub fn control(ask: &Ask, options: &ControlOptions) -> Result<()> {
    let mut line = Line::connect(options)?;
    match ask {
        Ask::Status => {
            line.ask(&json!({ "do": "status" })).and_then(|answer| if options.json { say(answer) } else { say(status(&answer)) })
        }
        Ask::Log(after) => log(&mut line, *after, options.json),
        Ask::Thresholds(set) => {
            let set: Map<String, Value> = set.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
            line.ask(&json!({ "do": "thresholds", "set": set })).and_then(|answer| told(&answer, "thresholds", options.json))
        }
        Ask::Reload => line.ask(&json!({ "do": "reload" })).and_then(|answer| told(&answer, "", options.json)),
        Ask::Model(name) => line.ask(&json!({ "do": "model", "name": name })).and_then(|answer| told(&answer, "model", options.json)),
    }
}

/// A connection, one line each way at a time.
struct Line {
    stream: BufReader<UnixStream>,
    socket: String,
}

impl Line {
    fn connect(options: &ControlOptions) -> Result<Line> {
        let socket = options.socket.display().to_string();
        let stream = UnixStream::connect(&options.socket)
            .with_context(|| format!("{socket}: nobody can be asked there (does the configuration set control.socket?)"))?;
        stream.set_read_timeout(Some(options.timeout).filter(|timeout| !timeout.is_zero()))?;
        Ok(Line { stream: BufReader::new(stream), socket })
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        let socket = &self.socket;
        let mut bytes = Vec::new();
        // a daemon that is full has answered and closed already: what it said counts
        let sent = self.stream.get_mut().write_all(format!("{request}\n").as_bytes());
        let read = (&mut self.stream).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut bytes);
        read.with_context(|| format!("{socket}: no answer came in time"))?;
        if bytes.is_empty() {
            sent.with_context(|| format!("{socket}: the request cannot be sent"))?;
            bail!("{socket}: the daemon ended the connection without an answer");
        }
        let answer: Value = serde_json::from_slice(&bytes).with_context(|| format!("{socket}: the answer is not one of eomt-edge"))?;
        match (answer["ok"].as_bool(), answer["error"].as_str()) {
            (Some(true), _) => Ok(answer),
            (_, Some(error)) => bail!("{}", sentence(error)),
            _ => bail!("{socket}: the answer is not one of eomt-edge"),
        }
    }
}

/// What a change led to.
fn told(answer: &Value, what: &str, json: bool) -> Result<()> {
    if json {
        return say(answer);
    }
    let now = match what {
        "thresholds" => values(&answer["thresholds"]),
        "model" => format!("{} ({})", text(&answer["model"]["path"]), text(&answer["model"]["name"])),
        _ => "reloaded".to_owned(),
    };
    let lasts = answer["lasts"].as_str().map_or_else(String::new, |lasts| format!(", {}", sentence(lasts)));
    say(format!("{now}{lasts}"))
}

fn log(line: &mut Line, mut after: u64, json: bool) -> Result<()> {
    loop {
        let answer = line.ask(&json!({ "do": "log", "after": after }))?;
        if json {
            say(&answer)?;
        } else {
            for line in answer["lines"].as_array().into_iter().flatten() {
                let second = line["time"].as_f64().unwrap_or_default() as u64 % 86_400;
                let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
                let (number, level) = (line["n"].as_u64().unwrap_or_default(), text(&line["level"]));
                say(format!("{number:>5} {hours:02}:{minutes:02}:{seconds:02}Z {level:<5} {}", text(&line["text"])))?;
            }
        }
        // a daemon that promises more and gives nothing would be asked for ever
        match answer["next"].as_u64().filter(|next| answer["more"] == true && *next > after) {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

fn text(value: &Value) -> String {
    sentence(value.as_str().unwrap_or("?"))
}

/// `threshold 0.8, mask_threshold 0.5`
fn values(object: &Value) -> String {
    let entries = object.as_object().into_iter().flatten();
    let entries: Vec<String> = entries.map(|(key, value)| sentence(&format!("{key} {value}"))).collect();
    entries.join(", ")
}

fn status(answer: &Value) -> String {
    let (model, source) = (&answer["model"], &answer["source"]);
    let mebibytes = answer["memory_bytes"].as_u64().unwrap_or_default() >> 20;
    let names: Vec<String> = answer["models"].as_array().into_iter().flatten().map(text).collect();
    let note = match (model["fallback"] == true, model["configured"] == true) {
        (true, _) => ", the last good one and not the configured one",
        (_, false) => ", chosen at the control socket",
        _ => "",
    };
    let signal = if source["no_signal"] == true { ", no signal" } else { "" };
    let rows = [
        format!("daemon      {} (process {}), up {} s, {mebibytes} MiB", text(&answer["version"]), answer["pid"], answer["uptime_s"]),
        format!(
            "frames      {} a second; {} published, {} dropped, {} failed",
            answer["fps"], answer["frames"], answer["dropped"], answer["failed"]
        ),
        format!("source      {}{signal}", text(&source["uri"])),
        format!("model       {}: {} for {}{note}", text(&model["path"]), text(&model["name"]), text(&model["task"])),
        format!("            {} classes, {}, sha256 {}", model["classes"], text(&model["precision"]), text(&model["sha256"])),
        format!("computed    on {}, {} threads", text(&answer["isa"]), answer["threads"]),
        format!("thresholds  {}", values(&answer["thresholds"])),
        format!("models      {}", if names.is_empty() { "none to switch to".to_owned() } else { names.join(", ") }),
    ];
    rows.join("\n")
}
