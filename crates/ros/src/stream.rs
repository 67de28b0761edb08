//! Frames between two local processes: `eomt-edge-bridge images` writes them to a pipe, the daemon reads them.
//!
//! Each frame is a header of [`HEADER_BYTES`] bytes and then its pixels or its file. All numbers are little-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `EOMTFRAM` |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | flags: 1 = a file (JPEG, PNG), 2 = values of more than one byte are big-endian |
//! | 16 | 4 | width, pixels; 0 for a file |
//! | 20 | 4 | height, pixels; 0 for a file |
//! | 24 | 4 | bytes of a row; 0 for a file |
//! | 28 | 4 | 0 |
//! | 32 | 8 | bytes that follow the header |
//! | 40 | 8 | stamp, nanoseconds since 1970; 0 = none |
//! | 48 | 64 | encoding as the ROS message has it (`rgb8`, `rgb8; jpeg compressed bgr8`), zeros behind it |
//!
//! Invariants: a header that was decoded announces no more bytes than its reader allowed, and as many as its rows, or rows and planes of
//! colour, may take. Refuses: to know encodings.

/// Bytes of a header.
pub const HEADER_BYTES: usize = 112;
/// The most bytes of an encoding's name.
pub const ENCODING_BYTES_MAX: usize = 64;

const MAGIC: [u8; 8] = *b"EOMTFRAM";
const VERSION: u32 = 1;
const FILE: u32 = 1;
const BIG_ENDIAN: u32 = 2;

/// Why 112 bytes are no header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Something else writes there.
    #[error("no frame begins here: the writer is not eomt-edge-bridge images")]
    Magic,
    /// Another version of the program writes.
    #[error("the frames are of version {0}, this program reads version 1: install the same version of both")]
    Version(u32),
    /// Flags or reserved bytes that no version 1 writes.
    #[error("the header has bits that version 1 does not know")]
    Reserved,
    /// More than the reader has room for.
    #[error("a frame of {bytes} bytes is larger than the allowed {most}")]
    TooLarge {
        /// Announced.
        bytes: u64,
        /// Allowed.
        most: u64,
    },
    /// Rows and bytes do not fit each other.
    #[error("a frame of {height} rows of {step} bytes cannot have {bytes} bytes")]
    Rows {
        /// Rows.
        height: u32,
        /// Bytes of a row.
        step: u32,
        /// Announced.
        bytes: u64,
    },
    /// An encoding that is empty, too long, or not printable ASCII.
    #[error("the encoding's name is not 1 to 64 printable characters")]
    Encoding,
}

/// What precedes a frame's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrameHeader {
    /// As the ROS message has it.
    pub encoding: String,
    /// The bytes are a file: JPEG or PNG.
    pub is_file: bool,
    /// Values of more than one byte are big-endian.
    pub is_bigendian: bool,
    /// Pixels; 0 for a file.
    pub width: u32,
    /// Pixels; 0 for a file.
    pub height: u32,
    /// Bytes of a row; 0 for a file.
    pub step: u32,
    /// Bytes that follow.
    pub bytes: u64,
    /// Nanoseconds since 1970; 0 = none.
    pub stamp_ns: u64,
}

impl FrameHeader {
    /// As bytes.
    ///
    /// # Errors
    /// [`StreamError::Encoding`], [`StreamError::Rows`].
    pub fn encode(&self) -> Result<[u8; HEADER_BYTES], StreamError> {
        self.check()?;
        let mut out = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let flags = if self.is_file { FILE } else { 0 } | if self.is_bigendian { BIG_ENDIAN } else { 0 };
        put(0, &MAGIC);
        for (at, number) in [(8, VERSION), (12, flags), (16, self.width), (20, self.height), (24, self.step)] {
            put(at, &number.to_le_bytes());
        }
        put(32, &self.bytes.to_le_bytes());
        put(40, &self.stamp_ns.to_le_bytes());
        put(48, self.encoding.as_bytes());
        Ok(out)
    }

    /// From bytes of a writer that may be anybody; at most `bytes_max` may follow.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn decode(header: &[u8; HEADER_BYTES], bytes_max: u64) -> Result<FrameHeader, StreamError> {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        if header[..8] != MAGIC {
            return Err(StreamError::Magic);
        }
        if word(8) != VERSION {
            return Err(StreamError::Version(word(8)));
        }
        let flags = word(12);
        if flags & !(FILE | BIG_ENDIAN) != 0 || word(28) != 0 {
            return Err(StreamError::Reserved);
        }
        let name = &header[48..];
        let end = name.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let decoded = FrameHeader {
            encoding: std::str::from_utf8(&name[..end]).map_err(|_| StreamError::Encoding)?.to_owned(),
            is_file: flags & FILE != 0,
            is_bigendian: flags & BIG_ENDIAN != 0,
            width: word(16),
            height: word(20),
            step: word(24),
            bytes: long(32),
            stamp_ns: long(40),
        };
        decoded.check()?;
        if decoded.bytes > bytes_max {
            return Err(StreamError::TooLarge { bytes: decoded.bytes, most: bytes_max });
        }
        Ok(decoded)
    }

    fn check(&self) -> Result<(), StreamError> {
        let printable = |c: u8| c.is_ascii_graphic() || c == b' ';
        if !(1..=ENCODING_BYTES_MAX).contains(&self.encoding.len()) || !self.encoding.bytes().all(printable) {
            return Err(StreamError::Encoding);
        }
        let rows = u64::from(self.step) * u64::from(self.height);
        // planes of colour follow the rows that the height counts: twice as much at most (4:4:4)
        let pixels = rows > 0 && self.width > 0 && (rows..=rows.saturating_mul(3)).contains(&self.bytes);
        let fits = if self.is_file { (self.width, self.height, self.step) == (0, 0, 0) } else { pixels };
        if fits { Ok(()) } else { Err(StreamError::Rows { height: self.height, step: self.step, bytes: self.bytes }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> FrameHeader {
        let (step, height) = (1920, 480);
        FrameHeader {
            encoding: "rgb8".into(),
            width: 640,
            height,
            step,
            bytes: u64::from(step * height),
            stamp_ns: 1_764_500_000_123_456_789,
            ..Default::default()
        }
    }

    #[test]
    fn there_and_back() {
        let file = FrameHeader { encoding: "mono16; png compressed ".into(), is_file: true, bytes: 5, ..Default::default() };
        let longest = FrameHeader { encoding: "x".repeat(64), is_bigendian: true, ..raw() };
        for header in [raw(), file, longest] {
            assert_eq!(FrameHeader::decode(&header.encode().unwrap(), header.bytes).as_ref(), Ok(&header));
        }
    }

    #[test]
    fn fields_stand_where_the_table_says() {
        let bytes = raw().encode().unwrap();
        assert_eq!(&bytes[..16], b"EOMTFRAM\x01\0\0\0\0\0\0\0");
        assert_eq!(&bytes[16..32], [0x80, 2, 0, 0, 0xe0, 1, 0, 0, 0x80, 7, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[32..40], 921_600_u64.to_le_bytes());
        assert_eq!(&bytes[48..54], b"rgb8\0\0");
    }

    #[test]
    fn every_other_byte_is_an_error_or_the_same_again() {
        let good = raw().encode().unwrap();
        for (at, value) in (0..HEADER_BYTES).flat_map(|at| (0..=255).map(move |value| (at, value))) {
            let mut bytes = good;
            bytes[at] = value;
            if let Ok(header) = FrameHeader::decode(&bytes, 1 << 20) {
                assert_eq!(header.encode(), Ok(bytes), "{value} at {at}");
                assert!(header.bytes <= 1 << 20 && header.bytes >= u64::from(header.step) * u64::from(header.height));
            }
        }
    }

    #[test]
    fn what_no_writer_of_this_version_writes_is_refused() {
        let good = raw().encode().unwrap();
        let bad = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            FrameHeader::decode(&bytes, 1 << 20).unwrap_err()
        };
        assert_eq!(bad(0, b'X'), StreamError::Magic);
        assert_eq!(bad(8, 2), StreamError::Version(2));
        assert_eq!(bad(12, 4), StreamError::Reserved);
        assert_eq!(bad(28, 1), StreamError::Reserved);
        assert_eq!(bad(34, 1), StreamError::Rows { height: 480, step: 1920, bytes: 69_632 });
        assert_eq!(bad(12, 1), StreamError::Rows { height: 480, step: 1920, bytes: 921_600 });
        assert_eq!(bad(49, 7), StreamError::Encoding);
        assert_eq!(bad(49, 0xff), StreamError::Encoding);
        assert_eq!(FrameHeader::decode(&good, 921_599), Err(StreamError::TooLarge { bytes: 921_600, most: 921_599 }));
        assert_eq!(FrameHeader { encoding: "x".repeat(65), ..raw() }.encode(), Err(StreamError::Encoding));
    }
}
