//! Bags: recordings of ROS 2 topics, as `ros2 bag record` and others write them.
//!
//! ```no_run
//! use eomt_edge_ros::bag::Bag;
//! let bag = Bag::open("drive".as_ref(), 64 << 20)?;
//! for message in bag.messages(Some("/camera/image_raw")) {
//!     let message = message?;
//!     println!("{} bytes at {} ns", message.data.len(), message.log_time_ns);
//! }
//! # Ok::<(), eomt_edge_ros::bag::BagError>(())
//! ```
//!
//! ```text
//! path ─ listing: a directory's files in their order ─ storage: whole-file compression, then MCAP or SQLite
//!                                                        mcap: chunks, records ─┐
//!                                                        sqlite: rows ──────────┴─ unpack: compressed messages ─ Message
//! ```
//!
//! zstd and lz4 are undone at all three levels: chunk, message, whole file. What decides is the content, not the name or `metadata.yaml`.
//! Messages come in the order in which they were recorded.
//!
//! Invariants: no message of more bytes than the caller allows is held in memory, whatever the file says; a file that was cut, or is damaged,
//! gives what lies before the damage, then one error, then the bag's next file goes on. Refuses: to write, to sort, and every serialization
//! but CDR.

mod error;
mod listing;
mod mcap;
mod sqlite;
mod storage;
mod unpack;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::BagError;

use storage::Storage;

/// Topics of one bag: a robot has some hundreds.
const TOPICS_MAX: usize = 10_000;
/// A topic's name, or its type's, bytes: ROS allows 255.
const NAME_BYTES_MAX: usize = 1024;

/// What a bag says of one topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Topic {
    /// `/camera/image_raw`.
    pub name: String,
    /// `sensor_msgs/msg/Image`.
    pub type_name: String,
    /// How its messages are serialized: `cdr`.
    pub encoding: String,
}

impl Topic {
    /// Whether its messages are pictures that can be read: `sensor_msgs/msg/Image` or `CompressedImage` in CDR.
    pub fn has_images(&self) -> bool {
        self.encoding == "cdr" && [IMAGE, COMPRESSED_IMAGE].contains(&self.type_name.as_str())
    }
}

/// The type of raw pictures.
pub const IMAGE: &str = "sensor_msgs/msg/Image";
/// The type of JPEG and PNG pictures.
pub const COMPRESSED_IMAGE: &str = "sensor_msgs/msg/CompressedImage";

/// One message as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub topic: Arc<Topic>,
    /// When it was recorded: nanoseconds since 1970.
    pub log_time_ns: u64,
    /// The message, serialized and not compressed.
    pub data: Vec<u8>,
}

/// A bag: one file, or the files of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bag {
    path: PathBuf,
    files: Vec<PathBuf>,
    message_bytes_max: usize,
}

impl Bag {
    /// Finds the files of a bag and looks at the beginning of the first. Messages of more than `message_bytes_max` are refused.
    ///
    /// # Errors
    /// When there is no such file, or it is no bag.
    pub fn open(path: &Path, message_bytes_max: usize) -> Result<Bag, BagError> {
        let bag = Bag { path: path.to_owned(), files: listing::of(path)?, message_bytes_max };
        if let Some(first) = bag.files.first() {
            storage::check(first)?;
        }
        Ok(bag)
    }

    /// Whether a path is that of a bag: a file that begins as one, or a directory with `metadata.yaml` or files of a bag.
    pub fn is_at(path: &Path) -> bool {
        if path.is_dir() { listing::of(path).is_ok() } else { storage::check(path).is_ok() }
    }

    /// As the caller named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The topics of all files, by name. Reads a file's index where it has one, else all of the file.
    ///
    /// # Errors
    /// When no file can be read, or the bag has too many topics. Of a cut file, those that it has are listed.
    pub fn topics(&self) -> Result<Vec<Topic>, BagError> {
        let (mut topics, mut failed) = (Vec::new(), None);
        for file in &self.files {
            match Storage::open(file, self.message_bytes_max).and_then(|mut storage| storage.topics()) {
                Ok(found) => topics.extend(found),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        topics.sort();
        topics.dedup();
        match failed {
            Some(error) if topics.is_empty() => Err(error),
            _ => Ok(topics),
        }
    }

    /// The topic to take pictures from: the one called `wanted`, else the only one that has pictures.
    ///
    /// # Errors
    /// When there is none, or the choice is the user's: the sentence lists the topics.
    pub fn image_topic(&self, wanted: Option<&str>) -> Result<Topic, BagError> {
        let path = || self.path.clone();
        if let Some(name) = wanted {
            // its first message tells, and is there long before the end of a file without an index
            let first = self.messages(wanted).flatten().next();
            let topics = first.map_or_else(|| self.topics(), |message| Ok(vec![Topic::clone(&message.topic)]))?;
            return match topics.iter().find(|topic| topic.name == name) {
                Some(topic) if topic.has_images() => Ok(topic.clone()),
                Some(topic) => Err(BagError::NotImages { path: path(), topic: topic.clone() }),
                None => Err(BagError::NoTopic { path: path(), wanted: name.to_owned(), topics }),
            };
        }
        let topics = self.topics()?;
        let mut images: Vec<Topic> = topics.iter().filter(|topic| topic.has_images()).cloned().collect();
        match images.len() {
            0 => Err(BagError::NoImages { path: path(), topics }),
            1 => Ok(images.remove(0)),
            _ => Err(BagError::SeveralTopics { path: path(), topics: images }),
        }
    }

    /// The messages of one topic, or of all.
    pub fn messages(&self, topic: Option<&str>) -> Messages {
        Messages {
            files: self.files.iter().cloned().collect(),
            storage: None,
            wanted: topic.map(str::to_owned),
            message_bytes_max: self.message_bytes_max,
        }
    }
}

/// Messages of a bag, file by file. An error is about one message or one file; what comes after it is still read.
pub struct Messages {
    files: VecDeque<PathBuf>,
    storage: Option<Storage>,
    wanted: Option<String>,
    message_bytes_max: usize,
}

impl Messages {
    /// The messages of one file's bytes, for tests and fuzzing.
    ///
    /// # Errors
    /// When they are no bag.
    pub fn of_bytes(bytes: &[u8], message_bytes_max: usize) -> Result<Messages, BagError> {
        let storage = Storage::of_bytes(bytes, message_bytes_max)?;
        Ok(Messages { files: VecDeque::new(), storage: Some(storage), wanted: None, message_bytes_max })
    }
}

impl Iterator for Messages {
    type Item = Result<Message, BagError>;

    fn next(&mut self) -> Option<Result<Message, BagError>> {
        loop {
            let Some(storage) = &mut self.storage else {
                match Storage::open(&self.files.pop_front()?, self.message_bytes_max) {
                    Ok(storage) => self.storage = Some(storage),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            match storage.next(self.wanted.as_deref()) {
                Ok(Some(message)) => return Some(storage.unpacked(message)),
                Ok(None) => self.storage = None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
