//! The two ways between the frame path and the display thread, each a mailbox of one.

use std::sync::Arc;

use eomt_edge_core::data::{Frame, Segment};
use eomt_edge_core::pipeline::Mailbox;

use crate::sink::State;

/// One frame with its segments. Its memory travels back and forth between the frame path and the display thread.
#[derive(Debug)]
pub(super) struct Picture {
    pub frame: Frame,
    pub ids: Vec<u16>,
    pub table: Vec<Segment>,
    pub labels: Arc<[String]>,
    /// Frames published up to this one.
    pub published: u64,
    pub published_ns: u64,
}

impl Picture {
    pub fn empty() -> Box<Picture> {
        let (frame, labels) = (Frame::rgb(0, 0, Vec::new()), Arc::from([]));
        Box::new(Picture { frame, ids: Vec::new(), table: Vec::new(), labels, published: 0, published_ns: 0 })
    }
}

/// What the frame path and the daemon send to the display thread.
#[derive(Debug)]
pub(super) enum Message {
    Picture(Box<Picture>),
    State(State),
}

/// The two ways between the frame path and the display thread.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Empty, from the thread: it is ready for the next picture.
    pub ready: Mailbox<Box<Picture>>,
    pub messages: Mailbox<Message>,
}

impl Exchange {
    /// The newest message wins; the picture that it replaces is memory for the next.
    pub fn send(&self, message: Message) {
        let is_picture = matches!(message, Message::Picture(_));
        let mut unseen = self.messages.put(message);
        // except over a failure that was not shown yet
        if is_picture && matches!(&unseen, Some(Message::State(state)) if state.is_failure()) {
            unseen = unseen.and_then(|failure| self.messages.put(failure));
        }
        if let Some(Message::Picture(unseen)) = unseen {
            self.ready.put(unseen);
        }
    }
}
