//! What can be wrong with a bag. Each sentence names the file, and the topic where it is about one.

use std::io;
use std::path::PathBuf;

use super::Topic;

/// Why a bag, or a part of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BagError {
    /// The system cannot read it.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something else.
    #[error("{}: this is no bag: {reason}", path.display())]
    NoBag {
        /// The file or directory.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// The file ends early, or contradicts itself.
    #[error("{}: the bag is damaged after {messages} messages: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Messages before the damage, of all topics that were asked for.
        messages: u64,
        /// What is wrong.
        reason: String,
    },
    /// One message.
    #[error("{}: message {number} of {topic} cannot be unpacked: {reason}", path.display())]
    Message {
        /// The file.
        path: PathBuf,
        /// Its place among those that were asked for, from 1.
        number: u64,
        /// Its topic.
        topic: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no such topic.
    #[error("{}: there is no topic {wanted}; {}", path.display(), listed(topics))]
    NoTopic {
        /// The bag.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is.
        topics: Vec<Topic>,
    },
    /// The topic that was asked for has no pictures.
    #[error(
        "{}: {} has messages of {} in {}; pictures are read from sensor_msgs/msg/Image and CompressedImage in cdr",
        path.display(), topic.name, topic.type_name, topic.encoding
    )]
    NotImages {
        /// The bag.
        path: PathBuf,
        /// The topic.
        topic: Topic,
    },
    /// No topic has pictures.
    #[error("{}: no topic has pictures (sensor_msgs/msg/Image or CompressedImage in cdr); {}", path.display(), listed(topics))]
    NoImages {
        /// The bag.
        path: PathBuf,
        /// What there is.
        topics: Vec<Topic>,
    },
    /// Several topics have pictures.
    #[error("{}: several topics have pictures, name one of them behind a colon: {}", path.display(), names(topics))]
    SeveralTopics {
        /// The bag.
        path: PathBuf,
        /// Those with pictures.
        topics: Vec<Topic>,
    },
}

/// Topics that a sentence names.
const SHOWN: usize = 10;

fn names(topics: &[Topic]) -> String {
    let shown: Vec<&str> = topics.iter().take(SHOWN).map(|topic| topic.name.as_str()).collect();
    let more = topics.len() - shown.len();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn listed(topics: &[Topic]) -> String {
    if topics.is_empty() { "the bag has none".to_owned() } else { format!("the bag has {}", names(topics)) }
}

/// Why a file gives no message, and whether it will give none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub reason: String,
    pub is_end: bool,
}

impl Fault {
    pub fn end(reason: impl ToString) -> Fault {
        Fault { reason: reason.to_string(), is_end: true }
    }

    pub fn passing(reason: impl ToString) -> Fault {
        Fault { reason: reason.to_string(), is_end: false }
    }
}
