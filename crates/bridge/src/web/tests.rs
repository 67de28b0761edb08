//! Real connections to a real server, with requests written by hand: what a browser would not send, too.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use super::auth::{Auth, FAILURES_MAX, Secret};
use super::hub::{Hub, publish};
use super::start_server;

/// No answer takes this long; what does is a failed test.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of its own for each test; it ends with it.
struct Server {
    hub: Arc<Hub>,
    address: SocketAddr,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(token: Option<&str>, viewers: usize) -> Server {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let auth = token.map(|token| Auth::new(Secret::new(token)));
        let hub = Arc::new(Hub::new(auth, vec!["localhost".into(), "robot".into()], "/nowhere/control.sock".into(), false, viewers));
        let thread = Some(start_server(&hub, runtime, listener, None).unwrap());
        Server { hub, address, thread }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Status, headers in lower case, body.
    fn ask(&self, request: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        stream.write_all(request.replace('\n', "\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    fn get(&self, path: &str, more: &str) -> (u16, String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\nHost: localhost\nConnection: close\n{more}\n"))
    }

    fn login(&self, token: &str) -> (u16, String, String) {
        let length = token.len();
        self.ask(&format!("POST /login HTTP/1.1\nHost: localhost\nConnection: close\nContent-Length: {length}\n\n{token}"))
    }

    fn view(&self, more: &str) -> Result<Page, u16> {
        let mut stream = self.connect();
        let key = "dGhlIHNhbXBsZSBub25jZQ=="; // RFC 6455, 1.3, with its answer
        let request = format!(
            "GET /live HTTP/1.1\nHost: localhost\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: {key}\n{more}\n"
        );
        stream.write_all(request.replace('\n', "\r\n").as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        match head.split(' ').nth(1).unwrap().parse().unwrap() {
            101 => {
                assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
                Ok(Page(stream))
            }
            status => Err(status),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.hub.ending.send_replace(true);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The other end of a WebSocket (RFC 6455, 5.2).
struct Page(TcpStream);

#[derive(Debug, PartialEq)]
enum Heard {
    Text(Value),
    Frame(Vec<u8>),
    Closed,
}

impl Page {
    fn say(&mut self, text: &str) {
        self.send(1, text.as_bytes());
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend((long as u16).to_be_bytes());
            }
        }
        frame.extend([0; 4]); // a mask that changes nothing
        frame.extend(payload);
        self.0.write_all(&frame).unwrap();
    }

    fn hear(&mut self) -> Heard {
        loop {
            let mut head = [0; 2];
            if self.0.read_exact(&mut head).is_err() {
                return Heard::Closed;
            }
            let mut length = usize::from(head[1]);
            if length == 126 {
                let mut more = [0; 2];
                self.0.read_exact(&mut more).unwrap();
                length = usize::from(u16::from_be_bytes(more));
            }
            assert!(length < 65536, "no test sends more");
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).unwrap();
            match head[0] & 15 {
                1 => return Heard::Text(serde_json::from_slice(&payload).unwrap()),
                2 => return Heard::Frame(payload),
                8 => return Heard::Closed,
                _ => {} // pings need no answer for so short a time
            }
        }
    }

    /// Everything that was sent before the answer to a question.
    fn until_clock(&mut self, t: f64) -> Vec<Heard> {
        self.say(&json!({ "do": "clock", "t": t }).to_string());
        let mut heard = Vec::new();
        loop {
            match self.hear() {
                Heard::Text(text) if text["type"] == "clock" && text["t"] == t => return heard,
                Heard::Closed => panic!("closed after {heard:?}"),
                other => heard.push(other),
            }
        }
    }
}

fn frame(number: u8) -> Option<Bytes> {
    Some(Bytes::from(vec![number; 3]))
}

#[test]
fn every_answer_has_strict_headers() {
    let server = Server::start(None, 2);
    for (path, kind) in [("/", "text/html"), ("/page.js", "text/javascript"), ("/style.css", "text/css"), ("/session", "application/json")]
    {
        let (status, head, _) = server.get(path, "");
        assert_eq!(status, 200, "{path}");
        assert!(head.contains(&format!("content-type: {kind}")), "{head}");
    }
    for (status, head, _) in [
        server.get("/", ""),
        server.get("/missing", ""),
        server.get("/live", ""),
        server.ask("GET / HTTP/1.1\nHost: evil\nConnection: close\n\n"),
    ] {
        for line in [
            "content-security-policy: default-src 'none';",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(head.contains(line), "{status}: {line}: {head}");
        }
        assert!(!head.contains("unsafe-inline") && !head.contains("set-cookie"), "{head}");
    }
}

#[test]
fn the_page_is_whole_and_carries_no_code_of_its_own() {
    let server = Server::start(None, 2);
    let (_, _, page) = server.get("/", "");
    assert!(!page.contains("://"), "nothing comes from elsewhere");
    assert!(!page.contains(" style=") && !page.contains(" onclick=") && !page.contains("<style"), "the policy forbids it");
    let (_, _, script) = server.get("/page.js", "");
    let named = page.split('"').filter(|name| name.ends_with(".js") || name.ends_with(".css") || name.ends_with(".svg"));
    let imported = script.split('"').filter_map(|name| name.strip_prefix("./"));
    for name in named.chain(imported) {
        assert_eq!(server.get(&format!("/{name}"), "").0, 200, "{name}");
    }
}

#[test]
fn names_and_origins_of_others_are_refused() {
    let server = Server::start(None, 2);
    assert_eq!(server.ask("GET / HTTP/1.1\nHost: rebound.example:80\nConnection: close\n\n").0, 421);
    assert_eq!(server.ask("GET /session HTTP/1.0\n\n").0, 400);
    assert_eq!(server.ask("GET / HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n").0, 200);
    assert_eq!(server.view("Origin: http://evil.example\n").err(), Some(403));
    assert_eq!(server.view("Origin: null\n").err(), Some(403));
    assert!(server.view("Origin: http://localhost\n").is_ok());
}

#[test]
fn large_requests_are_refused() {
    let server = Server::start(Some("correct horse"), 2);
    let (status, _, _) = server.login(&"x".repeat(5000));
    assert_eq!(status, 413);
    let (status, _, _) = server.get("/", &"X-More: 1\n".repeat(100));
    assert_eq!(status, 431);
    let mut stream = server.connect();
    // it is closed before all of that is taken, so that writing may fail
    let _ = stream.write_all(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(100_000)).as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(server.get("/", "").0, 200, "others are served");
}

#[test]
fn a_token_is_needed_where_there_is_one() {
    let server = Server::start(Some("correct horse"), 2);
    assert_eq!(server.view("").err(), Some(401));
    assert_eq!(server.get("/", "").0, 200, "the login");
    assert_eq!(server.get("/session", "").2, r#"{"free":true,"inside":false,"token":true}"#);
    assert_eq!(server.login("wrong token").0, 403);
    let (status, head, _) = server.login("correct horse");
    assert_eq!(status, 204);
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(
        cookie.contains("httponly") && cookie.contains("samesite=strict") && cookie.contains("path=/") && !cookie.contains("secure"),
        "{cookie}"
    );
    let cookie = format!("Cookie: {}\n", cookie.split(';').next().unwrap());
    assert!(server.get("/session", &cookie).2.contains("\"inside\":true"));
    assert!(server.view(&cookie).is_ok());
    assert!(server.view("Authorization: Bearer correct horse\n").is_ok());
    assert_eq!(server.ask(&format!("POST /logout HTTP/1.1\nHost: localhost\nConnection: close\n{cookie}\n")).0, 204);
    assert_eq!(server.view(&cookie).err(), Some(401));
    for _ in 1..FAILURES_MAX {
        server.login("wrong token");
    }
    let (status, head, _) = server.login("correct horse");
    assert_eq!(status, 429);
    assert!(head.contains("retry-after: "), "{head}");
}

#[test]
fn a_viewer_gets_a_frame_when_it_has_acknowledged_the_last() {
    let server = Server::start(None, 2);
    publish(&server.hub.facts, &json!({ "type": "facts", "labels": ["ball"] }));
    server.hub.frame.send_replace(frame(1));
    let mut page = server.view("").unwrap();
    assert_eq!(page.hear(), Heard::Text(json!({ "type": "facts", "labels": ["ball"] })), "it needs them for the frame");
    assert_eq!(page.hear(), Heard::Frame(vec![1; 3]));
    for number in 2..=4 {
        server.hub.frame.send_replace(frame(number));
        assert_eq!(page.until_clock(f64::from(number)), [], "no second frame on its way");
    }
    page.say(r#"{"do":"ack"}"#);
    assert_eq!(page.hear(), Heard::Frame(vec![4; 3]), "the newest, and the others are lost");
    page.say(r#"{"do":"ack"}"#);
    assert_eq!(page.until_clock(9.0), [], "nothing twice");
    server.hub.frame.send_replace(frame(5));
    assert_eq!(page.hear(), Heard::Frame(vec![5; 3]));
}

#[test]
fn a_viewer_that_reads_nothing_holds_up_nobody() {
    let server = Server::start(None, 2);
    let stuck = server.view("").unwrap();
    let mut page = server.view("").unwrap();
    for number in 0..100 {
        server.hub.frame.send_replace(frame(number));
        assert_eq!(page.hear(), Heard::Frame(vec![number; 3]));
        page.say(r#"{"do":"ack"}"#);
    }
    drop(stuck);
}

#[test]
fn viewers_are_counted() {
    let server = Server::start(None, 2);
    let (mut first, second) = (server.view("").unwrap(), server.view("").unwrap());
    assert_eq!(server.view("").err(), Some(503));
    assert!(server.get("/session", "").2.contains("\"free\":false"));
    drop(second);
    first.until_clock(1.0);
    while server.hub.viewers() > 1 {
        std::thread::yield_now();
    }
    assert!(server.view("").is_ok());
}

#[test]
fn nonsense_ends_a_viewer() {
    let server = Server::start(None, 2);
    type Speech = fn(&mut Page);
    let speeches: [Speech; 5] = [
        |page| page.say("hello"),
        |page| page.send(2, b"bytes"),
        |page| page.say(&" ".repeat(5000)),
        |page| page.send(1, &[0xff, 0xfe]),
        |page| (0..300).for_each(|_| page.say(r#"{"do":"ack"}"#)),
    ];
    for (number, speech) in speeches.iter().enumerate() {
        let mut page = server.view("").unwrap();
        speech(&mut page);
        while page.hear() != Heard::Closed {}
        while server.hub.viewers() > 0 {
            std::thread::yield_now();
        }
        assert!(server.view("").is_ok(), "speech {number}: others are served");
    }
}

#[test]
fn orders_need_a_token_and_a_daemon() {
    let order = r#"{"do":"reload","id":7}"#;
    let answer = |server: &Server, more: &str| {
        let mut page = server.view(more).unwrap();
        page.say(order);
        match page.hear() {
            Heard::Text(answer) => answer,
            other => panic!("{other:?}"),
        }
    };
    let said = answer(&Server::start(None, 2), "");
    assert_eq!((said["id"].as_u64(), said["ok"].as_bool()), (Some(7), Some(false)));
    assert!(said["error"].as_str().unwrap().contains("--token-file"), "{said}");
    let said = answer(&Server::start(Some("correct horse"), 2), "Authorization: Bearer correct horse\n");
    assert!(said["error"].as_str().unwrap().contains("/nowhere/control.sock"), "{said}");
}

#[test]
fn the_end_is_told() {
    let server = Server::start(None, 2);
    let mut page = server.view("").unwrap();
    page.until_clock(1.0);
    server.hub.ending.send_replace(true);
    assert_eq!(page.hear(), Heard::Closed);
}
