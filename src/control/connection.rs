//! One client: bytes to lines, answers to bytes.
//!
//! ```text
//! reading   until a line is there             too long: a last answer, then the end
//! asked     until the main thread answers     nothing is read meanwhile: the client's next lines wait in the kernel
//! writing   until the answer has gone
//! ```
//! Invariants: one line in and one line out are in memory at most; no call waits for the client.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use eomt_edge_host::output::{escaped, sentence};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde_json::{Value, json};

use super::request::LINE_BYTES_MAX;

/// A connection at which nothing happens for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What an answer adds when it comes from the main thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Facts of this thread: it looks at files.
    Status,
    /// Nothing.
    Change,
}

#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    /// What has come since the last line that was taken.
    input: Vec<u8>,
    /// Of the answer, and how much of it has gone.
    output: Vec<u8>,
    sent: usize,
    /// The main thread has been asked, and has not answered yet.
    pub asked: Option<Asked>,
    last: Instant,
    /// No more is read: it ends when all that it asked for is answered.
    ends: bool,
    broken: bool,
}

impl Connection {
    pub fn new(socket: OwnedFd, now: Instant) -> Connection {
        let (input, output) = (Vec::new(), Vec::new());
        Connection { socket, input, output, sent: 0, asked: None, last: now, ends: false, broken: false }
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// What it waits for.
    pub fn interest(&self) -> PollFlags {
        if self.is_writing() {
            PollFlags::OUT
        } else if self.asked.is_some() || self.ends || self.has_line() {
            PollFlags::empty() // a hang-up is told all the same
        } else {
            PollFlags::IN
        }
    }

    fn is_writing(&self) -> bool {
        self.sent < self.output.len()
    }

    /// Whether nothing will come of it any more.
    pub fn is_over(&self, now: Instant) -> bool {
        let idle = self.asked.is_none() && now.saturating_duration_since(self.last) >= IDLE_MAX;
        self.broken || idle || (self.ends && !self.is_writing() && self.asked.is_none() && !self.has_line())
    }

    /// Something has happened at its socket.
    pub fn happened(&mut self, events: PollFlags, now: Instant) {
        if self.is_writing() {
            self.write(now);
        } else if self.asked.is_none() && !self.ends && !self.has_line() {
            self.read(now);
        } else if events.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.broken = true; // who asked has gone
        }
    }

    /// As much as is there, a line at most.
    fn read(&mut self, now: Instant) {
        let mut buffer = [0; 4096];
        let room = (LINE_BYTES_MAX - self.input.len()).min(buffer.len());
        match recv(&self.socket, &mut buffer[..room], RecvFlags::DONTWAIT) {
            // it may still read its answers; what has no end is no line
            Ok((0, _)) => self.ends = true,
            Ok((count, _)) => {
                self.input.extend_from_slice(&buffer[..count]);
                if self.input.len() >= LINE_BYTES_MAX && !self.input.contains(&b'\n') {
                    (self.input, self.ends) = (Vec::new(), true);
                    self.answer(&refusal(&format!("a line has at most {LINE_BYTES_MAX} bytes, and this one has more")), now);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.broken = true,
        }
    }

    /// Whether the next line is there, and the one before it has been answered.
    pub fn has_line(&self) -> bool {
        self.asked.is_none() && !self.is_writing() && !self.broken && self.input.contains(&b'\n')
    }

    pub fn line(&mut self, now: Instant) -> Option<Vec<u8>> {
        if !self.has_line() {
            return None;
        }
        let end = self.input.iter().position(|byte| *byte == b'\n')?;
        self.last = now;
        Some(self.input.drain(..=end).collect())
    }

    /// Begins to send an answer.
    pub fn answer(&mut self, answer: &Value, now: Instant) {
        let text = line(answer).unwrap_or_else(|| {
            let short = refusal(&format!("the answer would have more than {LINE_BYTES_MAX} bytes"));
            line(&short).unwrap_or_default()
        });
        (self.output, self.sent, self.asked, self.last) = (text, 0, None, now);
        self.write(now);
    }

    fn write(&mut self, now: Instant) {
        match send(&self.socket, &self.output[self.sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => {
                self.sent += count;
                self.last = now;
                if !self.is_writing() {
                    (self.output, self.sent) = (Vec::new(), 0);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.broken = true,
        }
    }
}

/// An answer as it is sent; `None`: it is too long.
pub(super) fn line(answer: &Value) -> Option<Vec<u8>> {
    let mut text = escaped(&answer.to_string());
    text.push('\n');
    (text.len() <= LINE_BYTES_MAX).then(|| text.into_bytes())
}

/// The answer to what is not done.
pub(super) fn refusal(reason: &str) -> Value {
    json!({ "ok": false, "error": sentence(reason) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair(now: Instant) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("two sockets");
        (Connection::new(ours.into(), now), theirs)
    }

    const BOTH: PollFlags = PollFlags::IN.union(PollFlags::HUP);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn who_says_nothing_or_reads_nothing_is_disconnected() {
        let start = Instant::now();
        let (mut silent, mut client) = pair(start);
        client.write_all(b"{\"do\"").expect("room");
        silent.happened(BOTH, at(start, 30));
        assert!(!silent.is_over(at(start, 59)) && silent.is_over(at(start, 60)), "half a line is none");

        let (mut slow, mut client) = pair(start);
        let long = json!({ "ok": true, "text": "x".repeat(60_000) });
        // answers to nobody, until no more fits
        while !slow.is_writing() {
            slow.answer(&long, start);
        }
        assert_eq!(slow.interest(), PollFlags::OUT);
        assert!(!slow.is_over(at(start, 59)) && slow.is_over(at(start, 60)));
        client.read_exact(&mut [0; 50_000]).expect("there");
        slow.happened(PollFlags::OUT, at(start, 50));
        assert!(!slow.is_over(at(start, 60)), "it reads");

        let (mut asked, mut client) = pair(start);
        client.write_all(b"{}\n").expect("room");
        asked.happened(BOTH, start);
        assert!(asked.line(start).is_some());
        asked.asked = Some(Asked::Change);
        assert!(!asked.is_over(at(start, 3600)), "a model takes its time");
        drop(client);
        asked.happened(PollFlags::HUP, at(start, 3601));
        assert!(asked.is_over(at(start, 3601)));
    }

    #[test]
    fn lines_come_one_by_one_and_all_of_them() {
        let now = Instant::now();
        let (mut connection, mut client) = pair(now);
        client.write_all(b"a\nb\nc").expect("room");
        client.shutdown(std::net::Shutdown::Write).expect("open");
        connection.happened(BOTH, now);
        for expected in [b"a\n", b"b\n"] {
            assert_eq!(connection.line(now).as_deref(), Some(&expected[..]));
            connection.asked = Some(Asked::Status);
            connection.happened(PollFlags::IN, now);
            assert!(connection.line(now).is_none() && !connection.is_over(now), "the one before it is in work");
            connection.answer(&json!({ "ok": true }), now);
        }
        connection.happened(BOTH, now);
        assert!(connection.line(now).is_none() && connection.is_over(now), "what has no end is no line");
        let mut said = String::new();
        drop(connection);
        client.read_to_string(&mut said).expect("text");
        assert_eq!(said, "{\"ok\":true}\n{\"ok\":true}\n");
    }

    #[test]
    fn a_line_has_a_length_either_way() {
        let now = Instant::now();
        for (bytes, is_line) in [(LINE_BYTES_MAX, true), (LINE_BYTES_MAX + 1, false)] {
            let (mut connection, mut client) = pair(now);
            client.write_all(&[vec![b'x'; bytes - 1], vec![b'\n']].concat()).expect("room");
            (0..20).for_each(|_| connection.happened(PollFlags::IN, now));
            assert_eq!(connection.line(now).map(|line| line.len()), is_line.then_some(bytes));
            assert_eq!(connection.is_over(now), !is_line);
        }
        assert!(line(&json!("x".repeat(LINE_BYTES_MAX - 3))).is_some_and(|line| line.len() == LINE_BYTES_MAX));
        assert!(line(&json!("x".repeat(LINE_BYTES_MAX - 2))).is_none());
        let (mut connection, mut client) = pair(now);
        connection.answer(&json!("x".repeat(LINE_BYTES_MAX)), now);
        let mut said = [0; 200];
        let count = client.read(&mut said).expect("an answer");
        assert!(String::from_utf8_lossy(&said[..count]).contains("more than 65536 bytes"));
    }
}
