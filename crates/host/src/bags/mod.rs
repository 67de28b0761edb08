//! Pictures of bags as frames: what the daemon plays and the tools read.
//!
//! ```no_run
//! use eomt_edge_host::bags::{BagName, BagPictures};
//! for picture in BagPictures::open(&BagName::parse("drive.mcap:/camera/image_raw"), 16 << 20)? {
//!     let picture = picture?;
//!     println!("{}x{} at {} ns", picture.frame.width, picture.frame.height, picture.stamp_ns);
//! }
//! # Ok::<(), eomt_edge_host::bags::BagPictureError>(())
//! ```
//!
//! Invariants: a picture's sizes, stride and length are checked against each other before a pixel is looked at; a picture that cannot be read
//! is one error, and the next one is still read. Refuses: to guess what an unknown encoding means.

mod image;
mod unpack;

use std::path::{Path, PathBuf};

use eomt_edge_core::data::{Frame, PixelFormat};
use eomt_edge_core::preprocess::{FrameDecoder, RgbConverter};
use eomt_edge_ros::Message as _;
use eomt_edge_ros::bag::{Bag, BagError, COMPRESSED_IMAGE, IMAGE, Message, Messages, Topic};
use eomt_edge_ros::messages::sensor_msgs::{CompressedImage, Image};

pub use unpack::{UnpackedBag, unpack};

/// The most bytes that a pixel takes in a message, and what a message has beside its pixels.
const PIXEL_BYTES_MAX: u64 = 8;
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// Why a picture of a bag cannot be read; the sentence names the file, and the topic where it is about one.
#[derive(Debug, thiserror::Error)]
pub enum BagPictureError {
    /// The bag itself.
    #[error(transparent)]
    Bag(#[from] BagError),
    /// One picture.
    #[error("{}: picture {number} of {topic}: {reason}", path.display())]
    Picture {
        /// The bag.
        path: PathBuf,
        /// Its topic.
        topic: String,
        /// Its place in the topic, from 0.
        number: u64,
        /// What is wrong.
        reason: String,
    },
}

/// A bag and, where it has several topics of pictures, one of them: `FILE[:TOPIC]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BagName {
    /// A file, or the directory of a bag.
    pub path: PathBuf,
    /// `None`: the only one with pictures.
    pub topic: Option<String>,
}

impl BagName {
    /// A topic's name begins with a slash, so that a colon in a file's name stays one.
    pub fn parse(text: &str) -> BagName {
        match text.rfind(":/") {
            Some(at) if at > 0 => BagName { path: text[..at].into(), topic: Some(text[at + 1..].to_owned()) },
            _ => BagName { path: text.into(), topic: None },
        }
    }

    /// `path`, if a bag is there, perhaps with a topic behind a colon.
    pub fn at(path: &Path) -> Option<BagName> {
        let name = BagName { path: path.to_owned(), topic: None };
        let named = || path.to_str().map(BagName::parse).filter(|name| name.topic.is_some() && Bag::is_at(&name.path));
        if Bag::is_at(path) { Some(name) } else { named() }
    }
}

impl std::fmt::Display for BagName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.topic.iter().try_for_each(|topic| write!(f, ":{topic}"))
    }
}

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BagPicture {
    /// Of any raw format, or one JPEG picture ([`PixelFormat::Mjpg`]); sequence and time are zero.
    pub frame: Frame,
    /// When it was taken, as its header says: nanoseconds since 1970, 0 where it says nothing.
    pub stamp_ns: u64,
    /// When it was recorded: nanoseconds since 1970.
    pub log_time_ns: u64,
    /// Its place in the topic, from 0.
    pub number: u64,
}

impl BagPicture {
    /// The picture in a message. One of more than `max_pixels` is refused.
    ///
    /// # Errors
    /// The rest of a sentence.
    pub fn of(message: &Message, number: u64, max_pixels: u64) -> Result<BagPicture, String> {
        let Topic { name, type_name, .. } = &*message.topic;
        let wrong = |error| format!("it is no {type_name}: {error}");
        let (frame, header) = match type_name.as_str() {
            IMAGE => {
                let message = Image::from_cdr(&message.data).map_err(wrong)?;
                (image::raw(&message, max_pixels)?, message.header)
            }
            COMPRESSED_IMAGE => {
                let message = CompressedImage::from_cdr(&message.data).map_err(wrong)?;
                (image::compressed(message.data, &message.format, max_pixels)?, message.header)
            }
            _ => return Err(format!("{name} has messages of {type_name}")),
        };
        Ok(BagPicture { frame, stamp_ns: header.stamp.ns(), log_time_ns: message.log_time_ns, number })
    }

    /// The picture in RGB.
    ///
    /// # Errors
    /// What is wrong with a JPEG picture.
    pub fn into_rgb(self) -> Result<Frame, String> {
        let frame = FrameDecoder::default().decode(self.frame).map_err(|(error, _)| error.to_string())?;
        if frame.format == PixelFormat::Rgb24 {
            return Ok(frame);
        }
        let data = RgbConverter::new().rgb(&frame).to_vec();
        Ok(Frame { data, ..Frame::rgb(frame.width, frame.height, vec![0; 3 * frame.width as usize * frame.height as usize]) })
    }
}

/// The pictures of one topic, in the order in which they were recorded.
pub struct BagPictures {
    path: PathBuf,
    topic: String,
    messages: Messages,
    max_pixels: u64,
    next: u64,
}

impl BagPictures {
    /// Finds the topic. Pictures of more than `max_pixels` are refused one by one.
    ///
    /// # Errors
    /// When there is no such bag, or the topic is not clear or has no pictures.
    pub fn open(name: &BagName, max_pixels: u64) -> Result<BagPictures, BagPictureError> {
        let bytes = max_pixels.saturating_mul(PIXEL_BYTES_MAX).saturating_add(HEAD_BYTES_MAX);
        let bag = Bag::open(&name.path, usize::try_from(bytes).unwrap_or(usize::MAX))?;
        let topic = bag.image_topic(name.topic.as_deref())?.name;
        let messages = bag.messages(Some(&topic));
        Ok(BagPictures { path: name.path.clone(), topic, messages, max_pixels, next: 0 })
    }

    /// Its name.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

impl Iterator for BagPictures {
    type Item = Result<BagPicture, BagPictureError>;

    fn next(&mut self) -> Option<Self::Item> {
        let message = match self.messages.next()? {
            Ok(message) => message,
            Err(error) => return Some(Err(error.into())),
        };
        let number = self.next;
        self.next += 1;
        let picture = BagPicture::of(&message, number, self.max_pixels);
        Some(picture.map_err(|reason| BagPictureError::Picture { path: self.path.clone(), topic: self.topic.clone(), number, reason }))
    }
}

#[cfg(test)]
mod tests;
