//! A recording that was cut or damaged, written whole again; pictures that another process pipes to the daemon.

use std::io::Cursor;

use eomt_edge_bridge::record::recover;
use eomt_edge_host::bags::streamed;
use eomt_edge_ros::bag::Messages;
use eomt_edge_ros::stream::{FrameHeader, HEADER_BYTES};

use super::assert_sentence;

/// Bytes; a message of the corpus has 700.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// As for other pictures.
const PIXELS_MAX: u64 = 1 << 19;

/// What is written reads whole, and holds as many messages as were found.
pub(crate) fn recovered(input: &[u8]) {
    match recover(&mut Cursor::new(input), Vec::new()) {
        Ok((found, file)) => {
            let messages = Messages::of_bytes(&file, MESSAGE_BYTES_MAX).expect("a file that we wrote");
            let mut count = 0;
            for message in messages {
                message.expect("a message that we wrote");
                count += 1;
            }
            assert_eq!(count, found.messages);
        }
        Err(error) => assert_sentence(&error.to_string()),
    }
}

/// Pictures behind headers, until one is none.
pub(crate) fn stream(mut input: &[u8]) {
    while let Some((head, rest)) = input.split_first_chunk::<HEADER_BYTES>() {
        let header = match FrameHeader::decode(head, rest.len() as u64) {
            Ok(header) => header,
            Err(error) => return assert_sentence(&error.to_string()),
        };
        assert_eq!(header.encode().as_ref(), Ok(head), "a header that is read is the one that would be written");
        let (data, after) = rest.split_at(header.bytes as usize);
        match streamed(header, data.to_vec(), PIXELS_MAX) {
            Ok(frame) => assert!(u64::from(frame.width) * u64::from(frame.height) <= PIXELS_MAX),
            Err(reason) => assert_sentence(&reason),
        }
        input = after;
    }
}
