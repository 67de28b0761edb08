//! Common Data Representation as ROS 2 uses it (XCDR version 1, final types): four bytes of encapsulation header, then fields, each aligned
//! to its own size as counted from the end of that header.
//!
//! Invariants: the reader never panics and never reserves more than its input has left; strings end with a zero byte that their length
//! counts. Written is little-endian, read are both orders. Refuses: parameter lists (PL_CDR) and XCDR version 2, which no ROS message uses.

/// Plain CDR, little-endian: representation, then options.
pub const HEADER: [u8; 4] = [0, 1, 0, 0];

/// A sample may end with fewer than so many bytes of padding.
const PADDING: usize = 8;

/// Why bytes are not the message that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CdrError {
    /// The encapsulation header names another representation.
    #[error("encoded as 0x{0:04x}, which is not plain CDR (0x0000 or 0x0001)")]
    Representation(u16),
    /// The message ends before its fields do.
    #[error("cut: {need} bytes are missing at byte {at}")]
    Cut {
        /// Offset after the header.
        at: usize,
        /// Bytes that are missing.
        need: usize,
    },
    /// More bytes than the type's fields take: it is another type.
    #[error("{0} bytes too many: it is of another type or version")]
    Rest(usize),
    /// A text is not UTF-8.
    #[error("the text at byte {0} is not UTF-8")]
    Text(usize),
    /// A boolean that is neither.
    #[error("the truth value at byte {0} is neither 0 nor 1")]
    Truth(usize),
}

/// Appends fields.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// With the header; `capacity` bytes are reserved.
    pub fn new(capacity: usize) -> Writer {
        let mut bytes = Vec::with_capacity(capacity + HEADER.len());
        bytes.extend_from_slice(&HEADER);
        Writer { bytes }
    }

    /// Header and fields.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// A number as its little-endian bytes, aligned to their count.
    pub fn number<const N: usize>(&mut self, little_endian: [u8; N]) {
        let at = self.bytes.len() - HEADER.len();
        self.bytes.resize(self.bytes.len() + at.next_multiple_of(N) - at, 0);
        self.bytes.extend_from_slice(&little_endian);
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The count that begins a sequence or a text.
    ///
    /// # Panics
    /// From 4 Gi elements on, which no frame has.
    pub fn count(&mut self, count: usize) {
        let count = u32::try_from(count).expect("a frame has fewer than 4 Gi elements");
        self.number(count.to_le_bytes());
    }

    /// A text. A zero byte would end it for readers in C: it is left out with what follows.
    pub fn text(&mut self, text: &str) {
        let text = text.split('\0').next().unwrap_or_default();
        self.count(text.len() + 1);
        self.raw(text.as_bytes());
        self.raw(&[0]);
    }
}

/// Takes fields off.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    /// `sample` begins with the encapsulation header.
    ///
    /// # Errors
    /// When it is too short or of another representation.
    pub fn new(sample: &'a [u8]) -> Result<Reader<'a>, CdrError> {
        let Some((header, bytes)) = sample.split_at_checked(HEADER.len()) else {
            return Err(CdrError::Cut { at: 0, need: HEADER.len() - sample.len() });
        };
        match u16::from_be_bytes([header[0], header[1]]) {
            0 => Ok(Reader { bytes, at: 0, big_endian: true }),
            1 => Ok(Reader { bytes, at: 0, big_endian: false }),
            other => Err(CdrError::Representation(other)),
        }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Bytes that were read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Nothing but padding may be left.
    ///
    /// # Errors
    /// [`CdrError::Rest`].
    pub fn finish(self) -> Result<(), CdrError> {
        if self.left() < PADDING { Ok(()) } else { Err(CdrError::Rest(self.left())) }
    }

    /// The next bytes.
    ///
    /// # Errors
    /// [`CdrError::Cut`].
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], CdrError> {
        let left = &self.bytes[self.at..];
        let taken = left.get(..count).ok_or(CdrError::Cut { at: self.at, need: count - left.len().min(count) })?;
        self.at += count;
        Ok(taken)
    }

    /// A number, aligned to its size, as little-endian bytes.
    ///
    /// # Errors
    /// [`CdrError::Cut`].
    pub fn number<const N: usize>(&mut self) -> Result<[u8; N], CdrError> {
        self.raw(self.at.next_multiple_of(N) - self.at)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.raw(N)?);
        if self.big_endian {
            bytes.reverse();
        }
        Ok(bytes)
    }

    /// The count of a sequence whose elements have at least one byte each.
    ///
    /// # Errors
    /// [`CdrError::Cut`], also for a count that the rest cannot hold.
    pub fn count(&mut self) -> Result<usize, CdrError> {
        let count = u32::from_le_bytes(self.number()?) as usize;
        if count > self.left() {
            return Err(CdrError::Cut { at: self.at, need: count - self.left() });
        }
        Ok(count)
    }

    /// A text, without its zero byte; some writers give an empty one no byte at all.
    ///
    /// # Errors
    /// [`CdrError::Cut`], [`CdrError::Text`].
    pub fn text(&mut self) -> Result<&'a str, CdrError> {
        let count = self.count()?;
        let at = self.at;
        let bytes = self.raw(count)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).map_err(|_| CdrError::Text(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_as_counted_from_the_header() {
        let mut writer = Writer::new(0);
        writer.number([7u8]);
        writer.number(0x0102_u16.to_le_bytes());
        writer.number(1.5_f64.to_le_bytes());
        writer.text("ab");
        assert_eq!(
            writer.finish(),
            [&[0, 1, 0, 0, 7, 0, 2, 1, 0, 0, 0, 0][..], &1.5_f64.to_le_bytes(), &[3, 0, 0, 0, b'a', b'b', 0]].concat()
        );
    }

    #[test]
    fn both_byte_orders_are_read() {
        let little = [0, 1, 0, 0, 9, 0, 0, 0, 4, 3, 2, 1];
        let big = [0, 0, 0, 0, 9, 0, 0, 0, 1, 2, 3, 4];
        for sample in [little, big] {
            let mut reader = Reader::new(&sample).unwrap();
            assert_eq!(reader.number::<1>(), Ok([9]));
            assert_eq!(reader.number().map(u32::from_le_bytes), Ok(0x0102_0304));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        assert_eq!(Reader::new(&[0, 1]).unwrap_err(), CdrError::Cut { at: 0, need: 2 });
        assert_eq!(Reader::new(&[0, 7, 0, 0]).unwrap_err(), CdrError::Representation(7));
        assert_eq!(Reader::new(&[0, 1, 0, 0, 1]).unwrap().number::<4>(), Err(CdrError::Cut { at: 0, need: 3 }));
        // four thousand million characters
        assert_eq!(
            Reader::new(&[0, 1, 0, 0, 255, 255, 255, 255, 0]).unwrap().text(),
            Err(CdrError::Cut { at: 4, need: u32::MAX as usize - 1 })
        );
        assert_eq!(Reader::new(&[0, 1, 0, 0, 2, 0, 0, 0, 0xff, 0]).unwrap().text(), Err(CdrError::Text(4)));
        assert_eq!(Reader::new(&[0, 1, 0, 0, 0, 0, 0, 0]).unwrap().text(), Ok(""));
        assert_eq!(Reader::new(&[0; 12]).unwrap().finish(), Err(CdrError::Rest(8)));
    }

    #[test]
    fn a_zero_byte_ends_a_text() {
        let mut writer = Writer::new(0);
        writer.text("a\0b");
        assert_eq!(writer.finish(), [0, 1, 0, 0, 2, 0, 0, 0, b'a', 0]);
    }
}
