//! Bags: a file's bytes to messages, and a message's to a picture.

use std::sync::Arc;

use eomt_edge_core::data::PixelFormat;
use eomt_edge_host::bags::BagPicture;
use eomt_edge_ros::bag::{COMPRESSED_IMAGE, IMAGE, Message, Messages, Topic};

use super::assert_sentence;

/// Bytes; a message of the corpus has 700.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// More than an input of a megabyte can hold: 31 bytes are the shortest message.
const MESSAGES_MAX: usize = 1 << 20;
/// As for other pictures.
const PIXELS_MAX: u64 = 1 << 19;

/// A file of a bag, MCAP or SQLite, compressed or not. Its pictures are looked at, too.
pub(crate) fn bag(input: &[u8]) {
    let messages = match Messages::of_bytes(input, MESSAGE_BYTES_MAX) {
        Ok(messages) => messages,
        Err(error) => return assert_sentence(&error.to_string()),
    };
    let mut count = 0;
    for message in messages {
        count += 1;
        assert!(count <= MESSAGES_MAX, "a file without end");
        match message {
            Ok(message) => {
                assert!(message.data.len() <= MESSAGE_BYTES_MAX);
                if message.topic.has_images() {
                    look_at(&message);
                }
            }
            Err(error) => assert_sentence(&error.to_string()),
        }
    }
}

/// A message in CDR, as both types that pictures have.
pub(crate) fn image(input: &[u8]) {
    for type_name in [IMAGE, COMPRESSED_IMAGE] {
        let topic = Topic { name: "/camera".to_owned(), type_name: type_name.to_owned(), encoding: "cdr".to_owned() };
        look_at(&Message { topic: Arc::new(topic), log_time_ns: 0, data: input.to_vec() });
    }
}

fn look_at(message: &Message) {
    match BagPicture::of(message, 0, PIXELS_MAX) {
        Ok(picture) => {
            let frame = &picture.frame;
            let (width, height) = (frame.width, frame.height);
            assert!(width > 0 && height > 0 && u64::from(width) * u64::from(height) <= PIXELS_MAX);
            if frame.format != PixelFormat::Mjpg {
                assert_eq!(Some(frame.data.len()), frame.format.frame_len(width, height));
            }
            match picture.into_rgb() {
                Ok(rgb) => assert_eq!(Some(rgb.data.len()), PixelFormat::Rgb24.frame_len(width, height)),
                Err(error) => assert_sentence(&error),
            }
        }
        Err(error) => assert_sentence(&error),
    }
}
