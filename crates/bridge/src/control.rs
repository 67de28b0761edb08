//! The daemon's control socket as a bridge uses it: one line of JSON out, one line back.
//!
//! Invariants: a call ends within its patience; a line is at most [`LINE_BYTES_MAX`] bytes, either way; a connection that failed is not used
//! again. Refuses: to start, stop or reconnect by itself. The caller decides when to ask again.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eomt_edge_files::output::sentence;
use serde_json::{Value, json};

/// The daemon's bound on a line, its newline included.
pub const LINE_BYTES_MAX: usize = 65_536;
/// What answers at once or after a frame: status, log, thresholds.
pub const SOON: Duration = Duration::from_secs(5);
/// A reload or a switch: twice the longest `model.load_timeout` that the daemon has by default, and five seconds.
pub const LOADING: Duration = Duration::from_secs(245);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there.
    #[error("{}: no daemon answers at its control socket ({source}): set control.socket in eomt-edge.toml", .path.display())]
    Away {
        /// The socket.
        path: PathBuf,
        /// Of `connect(2)`.
        source: io::Error,
    },
    /// The connection ended, or no answer came in time.
    #[error("{}: {what} ({source})", .path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Something else than the daemon answers.
    #[error("{}: the answer is no JSON object with \"ok\"; is this the control socket of eomt-edge?", .path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon's own sentence.
    #[error("{0}")]
    Refused(String),
}

/// A connection to the daemon's control socket.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    stream: UnixStream,
    /// What came after the last answer's newline: nothing, of a daemon that keeps to one answer for each request.
    rest: Vec<u8>,
}

impl Control {
    /// Connects.
    ///
    /// # Errors
    /// [`ControlError::Away`] when nobody listens.
    pub fn connect(path: &Path) -> Result<Control, ControlError> {
        let stream = UnixStream::connect(path).map_err(|source| ControlError::Away { path: path.into(), source })?;
        Ok(Control { path: path.into(), stream, rest: Vec::new() })
    }

    /// Sends a request and waits for its answer. After an error other than [`ControlError::Refused`] the connection is of no more use.
    ///
    /// # Errors
    /// [`ControlError`]; the daemon's sentence when it refuses.
    pub fn ask(&mut self, request: &Value, patience: Duration) -> Result<Value, ControlError> {
        let deadline = Instant::now() + patience;
        let mut line = request.to_string();
        line.push('\n');
        let path = self.path.clone();
        let broken = |what: &'static str, source: io::Error| ControlError::Broken { path: path.clone(), what, source };
        self.stream.set_write_timeout(Some(patience)).map_err(|source| broken("cannot be set up", source))?;
        self.stream.write_all(line.as_bytes()).map_err(|source| broken("the request could not be sent", source))?;
        let answer = self.line(deadline).map_err(|source| broken("no answer came", source))?;
        parse(&answer).ok_or(ControlError::Foreign { path })?
    }

    /// The daemon's state: `status` of its protocol.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn status(&mut self) -> Result<Value, ControlError> {
        self.ask(&json!({ "do": "status" }), SOON)
    }

    /// Log lines after number `after`, oldest first: `log` of its protocol.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn log(&mut self, after: u64) -> Result<Value, ControlError> {
        self.ask(&json!({ "do": "log", "after": after }), SOON)
    }

    fn line(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut buffer = std::mem::take(&mut self.rest);
        let mut part = [0; 4096];
        loop {
            if let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                self.rest = buffer.split_off(end + 1);
                buffer.pop();
                return Ok(buffer);
            }
            if buffer.len() >= LINE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of more than 65536 bytes"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut part) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => buffer.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// An answer of the daemon: `None` when it is none.
pub fn parse(line: &[u8]) -> Option<Result<Value, ControlError>> {
    let answer: Value = serde_json::from_slice(line).ok()?;
    match answer.get("ok")?.as_bool()? {
        true => Some(Ok(answer)),
        false => Some(Err(ControlError::Refused(sentence(answer.get("error")?.as_str()?)))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// A peer that answers each request with the next of `answers`, in pieces, and then hangs up.
    fn peer(name: &str, answers: &'static [&'static str]) -> (PathBuf, thread::JoinHandle<Vec<String>>) {
        let path = std::env::temp_dir().join(format!("eomt-edge-control-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut asked = Vec::new();
            for answer in answers {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                asked.push(line);
                for part in answer.as_bytes().chunks(7) {
                    stream.write_all(part).unwrap();
                }
            }
            asked
        });
        (path, serving)
    }

    #[test]
    fn asks_line_by_line() {
        let (path, serving) =
            peer("lines", &["{\"ok\":true,\"version\":\"1\"}\n", "{\"ok\":false,\"error\":\"no\\nsuch model\"}\n", "{\"ok\":true}\n"]);
        let mut control = Control::connect(&path).unwrap();
        assert_eq!(control.status().unwrap()["version"], "1");
        let refused = control.ask(&json!({ "do": "model", "name": "x" }), SOON).unwrap_err();
        assert!(matches!(&refused, ControlError::Refused(said) if said == "no such model"), "{refused}");
        control.log(3).unwrap();
        assert!(matches!(control.status(), Err(ControlError::Broken { .. })), "the peer has hung up");
        assert_eq!(
            serving.join().unwrap(),
            ["{\"do\":\"status\"}\n", "{\"do\":\"model\",\"name\":\"x\"}\n", "{\"after\":3,\"do\":\"log\"}\n"]
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn says_who_is_missing() {
        let error = Control::connect(Path::new("/nowhere/control.sock")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/control.sock: no daemon") && error.contains("control.socket"), "{error}");
        let (path, serving) = peer("foreign", &["HTTP/1.1 400 Bad Request\n"]);
        let error = Control::connect(&path).unwrap().status().unwrap_err().to_string();
        assert!(error.contains("no JSON object"), "{error}");
        serving.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn answers_are_objects_with_ok() {
        for line in ["", "1", "{}", "{\"ok\":1}", "{\"ok\":false}", "{\"ok\":false,\"error\":1}", "[]", "{\"ok\":true"] {
            assert!(parse(line.as_bytes()).is_none(), "{line}");
        }
    }
}
