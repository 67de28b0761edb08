//! The last lines of the daemon's log, for who may not read the journal.
//!
//! Invariants: [`LINES_MAX`] lines at most, each one line of printable characters; what stands in a URL before `@` or after `?`, and a
//! command of `exec:`, is not in it. Nothing is kept until [`LogMemory::open`], nor after [`LogMemory::close`].

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use eomt_edge_host::output::{sentence, without_passwords};
use log::Level;
use serde_json::{Value, json};

/// Lines that are kept.
pub const LINES_MAX: usize = 500;

/// Texts that are hidden: a source's command, and those of the reloads before.
const HIDDEN_MAX: usize = 16;

/// The log of this process.
pub static LOG: LogMemory = LogMemory(Mutex::new(Memory { open: false, last: 0, lines: VecDeque::new(), hidden: VecDeque::new() }));

/// Lines of a log, the oldest forgotten first.
#[derive(Debug)]
pub struct LogMemory(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    open: bool,
    /// Number of the last line; the first one is 1.
    last: u64,
    lines: VecDeque<Line>,
    /// What must not be seen, and what is seen instead.
    hidden: VecDeque<(String, String)>,
}

#[derive(Debug, Clone)]
struct Line {
    number: u64,
    time: SystemTime,
    level: Level,
    text: String,
}

impl Memory {
    /// A text as others may see it.
    fn plain(&self, text: &str) -> String {
        let hidden = self.hidden.iter().fold(text.to_owned(), |text, (secret, instead)| text.replace(secret, instead));
        sentence(&without_passwords(&hidden))
    }
}

impl LogMemory {
    fn change<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lines are kept from now on.
    pub fn open(&self) {
        self.change(|memory| memory.open = true);
    }

    /// Forgets all, and keeps nothing any more.
    pub fn close(&self) {
        self.change(|memory| *memory = Memory { last: memory.last, ..Memory::default() });
    }

    /// One more line.
    pub fn add(&self, time: SystemTime, level: Level, text: &str) {
        self.change(|memory| {
            if !memory.open {
                return;
            }
            memory.last += 1;
            if memory.lines.len() >= LINES_MAX {
                memory.lines.pop_front();
            }
            let text = memory.plain(text);
            memory.lines.push_back(Line { number: memory.last, time, level, text });
        });
    }

    /// From now on lines have `instead` in the place of `secret`.
    pub fn hide(&self, secret: &str, instead: &str) {
        self.change(|memory| {
            if secret.is_empty() || memory.hidden.iter().any(|(known, _)| known == secret) {
                return;
            }
            if memory.hidden.len() >= HIDDEN_MAX {
                memory.hidden.pop_front();
            }
            memory.hidden.push_back((secret.to_owned(), instead.to_owned()));
        });
    }

    /// `text` as the lines would have it: a sentence without secrets.
    pub fn plain(&self, text: &str) -> String {
        self.change(|memory| memory.plain(text))
    }

    /// The answer to `log`: the lines after number `after`, as many as fit into `bytes_max` of JSON. A number that no line has had yet is one
    /// of an earlier daemon.
    pub(super) fn after(&self, after: u64, bytes_max: usize) -> Value {
        // two dozen digits and words more than the lines themselves
        const FRAME: usize = 128;
        self.change(|memory| {
            let after = if after > memory.last { 0 } else { after };
            let (mut lines, mut bytes, mut next, mut more) = (Vec::new(), FRAME, after, false);
            for line in memory.lines.iter().filter(|line| line.number > after) {
                let value = line.json();
                bytes += value.to_string().len() + 1;
                more = bytes > bytes_max;
                if more {
                    break;
                }
                next = line.number;
                lines.push(value);
            }
            json!({ "ok": true, "next": next, "more": more, "lines": lines })
        })
    }
}

impl Line {
    fn json(&self) -> Value {
        let millis = self.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let level = self.level.as_str().to_lowercase();
        json!({ "n": self.number, "time": millis as f64 / 1000.0, "level": level, "text": self.text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> LogMemory {
        let memory = LogMemory(Mutex::new(Memory::default()));
        memory.open();
        memory
    }

    fn texts(answer: &Value) -> Vec<&str> {
        answer["lines"].as_array().expect("lines").iter().map(|line| line["text"].as_str().expect("text")).collect()
    }

    const TIME: SystemTime = UNIX_EPOCH;

    #[test]
    fn the_last_lines_are_kept_and_read_on() {
        let memory = memory();
        (1..=LINES_MAX + 3).for_each(|line| memory.add(TIME, Level::Info, &format!("line {line}")));
        let all = memory.after(0, 1 << 20);
        assert_eq!((texts(&all).len(), texts(&all)[0], all["next"].as_u64()), (LINES_MAX, "line 4", Some(LINES_MAX as u64 + 3)));
        assert_eq!(all["lines"][0], json!({ "n": 4, "time": 0.0, "level": "info", "text": "line 4" }));
        memory.add(TIME, Level::Warn, "one more");
        let next = memory.after(all["next"].as_u64().unwrap(), 1 << 20);
        assert_eq!((texts(&next), &next["lines"][0]["level"]), (vec!["one more"], &json!("warn")));
        // of a daemon that ran before this one
        assert_eq!(texts(&memory.after(1_000_000, 1 << 20)).len(), LINES_MAX);
    }

    #[test]
    fn pages_hold_every_line_once_and_fit() {
        let memory = memory();
        (0..LINES_MAX).for_each(|line| memory.add(TIME, Level::Info, &format!("{line} {}", "\u{1b}\"ü ".repeat(line))));
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let page = memory.after(after, 16 << 10);
            assert!(page.to_string().len() <= 16 << 10);
            seen.extend(page["lines"].as_array().unwrap().iter().map(|line| line["n"].as_u64().unwrap()));
            after = page["next"].as_u64().unwrap();
            if page["more"] == false {
                break;
            }
        }
        assert_eq!(seen, (1..=LINES_MAX as u64).collect::<Vec<_>>());
    }

    #[test]
    fn no_secret_and_no_control_character_is_in_it() {
        let memory = memory();
        memory.hide("ffmpeg -password geheim", "ffmpeg ...");
        memory.add(TIME, Level::Error, "exec:ffmpeg -password geheim: \u{1b}[2Jthe\nend of rtsp://me:secret@camera/1?token=secret");
        let answer = memory.after(0, 1 << 20);
        assert_eq!(texts(&answer), ["exec:ffmpeg ...: \\u001b[2Jthe end of rtsp://***@camera/1?***"]);
        memory.close();
        memory.add(TIME, Level::Error, "nobody asks");
        assert!(texts(&memory.after(0, 1 << 20)).is_empty());
    }
}
