//! One viewer: a WebSocket.
//!
//! ```text
//! loop: frame, if the last one was acknowledged and there is a newer one
//!     | changed words (facts, state, control, log)
//!     | a request of the page
//!     | the answer to its order
//!     | a ping, now and then
//! ```
//!
//! Invariants: one frame is on its way at a time, so that a slow viewer loses frames and nothing queues; a viewer holds up nobody else. Refuses:
//! viewers that take nothing for [`SEND_MAX`], are silent for [`SILENCE_MAX`], or send more than [`REQUESTS_MAX`] a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use serde_json::{Value, json};
use tokio::sync::mpsc as bounded;
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};

use super::door;
use super::hub::{Guest, Hub};
use super::message::Request;
use crate::clock::monotonic_ns;

/// What is sent must leave within this.
pub const SEND_MAX: Duration = Duration::from_secs(5);
/// Between two pings; browsers answer them by themselves.
const PING: Duration = Duration::from_secs(5);
/// Without a word, or the answer to a ping.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Requests in a second. A page sends one for each frame.
const REQUESTS_MAX: u32 = 200;

/// Why a viewer is gone.
#[derive(Debug, thiserror::Error)]
pub enum Gone {
    /// The page was closed.
    #[error("it left")]
    Left,
    /// The connection.
    #[error("its connection broke: {0}")]
    Broken(#[from] axum::Error),
    /// It reads nothing.
    #[error("it took nothing for {} s", SEND_MAX.as_secs())]
    Stuck,
    /// It answers nothing.
    #[error("it was silent for {} s", SILENCE_MAX.as_secs())]
    Silent,
    /// It sends too much.
    #[error("it sent more than {REQUESTS_MAX} requests in a second")]
    Flood,
    /// It sends something else than requests.
    #[error("it sent {0}")]
    Nonsense(String),
    /// This program ends.
    #[error("this program ends")]
    Ending,
}

/// Serves until the viewer or this program goes.
pub async fn serve(mut socket: WebSocket, hub: Arc<Hub>, place: Guest, from: SocketAddr) {
    log::debug!("viewer {from}: here");
    let gone = Viewer::new(&hub, from).run(&mut socket).await;
    let polite = matches!(gone, Gone::Left | Gone::Ending | Gone::Broken(_));
    log::log!(if polite { log::Level::Debug } else { log::Level::Info }, "viewer {from}: {gone}");
    drop(place);
    // one that does not read takes no farewell either
    let _ = timeout(Duration::from_millis(200), socket.send(Message::Close(None))).await;
}

struct Viewer {
    hub: Arc<Hub>,
    from: SocketAddr,
    /// Facts, state, control.
    words: [watch::Receiver<Utf8Bytes>; 3],
    log: watch::Receiver<super::hub::Log>,
    log_seen: (u64, u64),
    answers: (bounded::Sender<Value>, bounded::Receiver<Value>),
    acknowledged: bool,
    heard: Instant,
    second: (Instant, u32),
}

impl Viewer {
    fn new(hub: &Arc<Hub>, from: SocketAddr) -> Viewer {
        let mut words = [hub.facts.subscribe(), hub.state.subscribe(), hub.door.subscribe()];
        words.iter_mut().for_each(watch::Receiver::mark_changed);
        let mut log = hub.log.subscribe();
        log.mark_changed();
        let now = Instant::now();
        let (answers, acknowledged) = (bounded::channel(1), true);
        Viewer { hub: Arc::clone(hub), from, words, log, log_seen: (0, 0), answers, acknowledged, heard: now, second: (now, 0) }
    }

    async fn run(mut self, socket: &mut WebSocket) -> Gone {
        let (mut frames, mut ending) = (self.hub.frame.subscribe(), self.hub.ending.subscribe());
        frames.mark_changed();
        let mut ping = interval(PING);
        if *ending.borrow_and_update() {
            return Gone::Ending;
        }
        loop {
            let [facts, state, control] = &mut self.words;
            // what arrives first is said first; a page needs the facts to understand a frame
            let done = tokio::select! {
                biased;
                _ = ending.changed() => Err(Gone::Ending),
                Ok(()) = facts.changed() => { let words = facts.borrow_and_update().clone(); say(socket, words).await }
                Ok(()) = state.changed() => { let words = state.borrow_and_update().clone(); say(socket, words).await }
                Ok(()) = control.changed() => { let words = control.borrow_and_update().clone(); say(socket, words).await }
                Ok(()) = self.log.changed() => self.tell_log(socket).await,
                Some(answer) = self.answers.1.recv() => say(socket, answer.to_string().into()).await,
                message = socket.recv() => self.hear(socket, message).await,
                Ok(()) = frames.changed(), if self.acknowledged => {
                    let frame = frames.borrow_and_update().clone();
                    match frame {
                        Some(frame) => { self.acknowledged = false; send(socket, Message::Binary(frame)).await }
                        None => Ok(()),
                    }
                }
                _ = ping.tick() => match self.heard.elapsed() > SILENCE_MAX {
                    true => Err(Gone::Silent),
                    false => send(socket, Message::Ping(Default::default())).await,
                },
            };
            if let Err(gone) = done {
                return gone;
            }
        }
    }

    async fn tell_log(&mut self, socket: &mut WebSocket) -> Result<(), Gone> {
        let message = self.log.borrow_and_update().message(&mut self.log_seen);
        match message {
            Some(message) => say(socket, message.to_string().into()).await,
            None => Ok(()),
        }
    }

    async fn hear(&mut self, socket: &mut WebSocket, message: Option<Result<Message, axum::Error>>) -> Result<(), Gone> {
        let message = message.ok_or(Gone::Left)??;
        self.heard = Instant::now();
        if self.second.0.elapsed() >= Duration::from_secs(1) {
            self.second = (self.heard, 0);
        }
        self.second.1 += 1;
        if self.second.1 > REQUESTS_MAX {
            return Err(Gone::Flood);
        }
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Err(Gone::Nonsense("bytes instead of a request".into())),
            Message::Close(_) => return Err(Gone::Left),
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
        };
        match Request::parse(&text).map_err(Gone::Nonsense)? {
            Request::Ack {} => self.acknowledged = true,
            Request::Clock { t } => {
                let now_us = monotonic_ns() / 1000;
                say(socket, json!({ "type": "clock", "t": t, "now_us": now_us }).to_string().into()).await?;
            }
            order => {
                let (hub, answers, viewer) = (Arc::clone(&self.hub), self.answers.0.clone(), self.from.to_string());
                tokio::spawn(async move {
                    if let Some(answer) = door::order(hub, order, viewer).await {
                        // the viewer may be gone by now
                        let _ = answers.send(answer).await;
                    }
                });
            }
        }
        Ok(())
    }
}

async fn say(socket: &mut WebSocket, text: Utf8Bytes) -> Result<(), Gone> {
    match text.is_empty() {
        true => Ok(()), // nothing is known yet
        false => send(socket, Message::Text(text)).await,
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), Gone> {
    timeout(SEND_MAX, socket.send(message)).await.map_err(|_| Gone::Stuck)?.map_err(Gone::from)
}
