//! Huffman codes (ITU-T T.81 annex C and F.2.2.3) out of the entropy-coded bytes between two markers.

use super::flaw::Flaw;

/// Codes up to this length are found with one look.
const SHORT: u32 = 9;

/// One Huffman table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// By the next [`SHORT`] bits: `length << 8 | value`, 0 = the code is longer.
    short: [u16; 1 << SHORT],
    /// By length: the first code behind those of this length, and what is added to a code for its place among the values.
    limits: [(u32, i32); 17],
    values: [u8; 256],
}

impl Table {
    /// `counts` = codes of 1 to 16 bits; `None` when they are no prefix code.
    pub fn new(counts: &[u8; 16], values: &[u8]) -> Option<Table> {
        let mut table = Table { short: [0; 1 << SHORT], limits: [(0, 0); 17], values: [0; 256] };
        table.values.get_mut(..values.len())?.copy_from_slice(values);
        let (mut code, mut at) = (0u32, 0u32);
        for (len, count) in (1..).zip(counts.iter().map(|count| u32::from(*count))) {
            if code + count > 1 << len {
                return None;
            }
            table.limits[len as usize] = (code + count, at as i32 - code as i32);
            for (code, value) in (code..code + count).zip(&values[at as usize..]).filter(|_| len <= SHORT) {
                let first = (code << (SHORT - len)) as usize;
                table.short[first..first + (1 << (SHORT - len))].fill((len << 8) as u16 | u16::from(*value));
            }
            (code, at) = ((code + count) << 1, at + count);
        }
        Some(table)
    }
}

/// The bits of a scan, up to the next marker.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte to take.
    at: usize,
    /// Bits in hand, the next one on top.
    hand: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    /// Starts at `bytes[at]`.
    pub fn new(bytes: &'a [u8], at: usize) -> Bits<'a> {
        Bits { bytes, at, hand: 0, count: 0 }
    }

    /// Takes bytes until the hand is full or a marker follows; FF 00 is a byte FF (T.81 B.1.1.5).
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match *self.bytes.get(self.at..).unwrap_or_default() {
                [0xFF, 0x00, ..] => {
                    self.at += 1;
                    0xFF
                }
                [0xFF, ..] | [] => return,
                [byte, ..] => byte,
            };
            self.at += 1;
            self.hand |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The value of the next code; up to 16 bits more are in hand then, if there are any.
    pub fn value(&mut self, table: &Table) -> Result<u8, Flaw> {
        if self.count < 32 {
            self.fill();
        }
        let short = table.short[(self.hand >> (64 - SHORT)) as usize];
        if short != 0 {
            self.skip(u32::from(short >> 8))?;
            return Ok(short as u8);
        }
        for len in SHORT + 1..=16 {
            let (code, (limit, offset)) = ((self.hand >> (64 - len)) as u32, table.limits[len as usize]);
            if code < limit {
                self.skip(len)?;
                return Ok(table.values[(code as i32 + offset) as usize & 0xFF]);
            }
        }
        Err(if self.count < 16 { Flaw::Short } else { Flaw::NoCode })
    }

    /// Leaves out `count` bits of those in hand.
    pub fn skip(&mut self, count: u32) -> Result<(), Flaw> {
        if count > self.count {
            return Err(Flaw::Short);
        }
        self.hand <<= count;
        self.count -= count;
        Ok(())
    }

    /// `count` bits (at most 16) as a number.
    pub fn take(&mut self, count: u32) -> Result<u32, Flaw> {
        if self.count < count {
            self.fill();
        }
        let number = if count == 0 { 0 } else { (self.hand >> (64 - count)) as u32 };
        self.skip(count)?;
        Ok(number)
    }

    /// The whole bytes (as they are stored) between what was taken and the next marker, and where that marker is.
    pub fn rest(&self) -> (&'a [u8], usize) {
        let mut end = self.at;
        while !matches!(self.bytes.get(end..).unwrap_or_default(), [] | [0xFF] | [0xFF, 1..=0xFF, ..]) {
            end += 1;
        }
        // those in hand were taken one by one, or two for an FF
        let mut start = self.at;
        for _ in 0..self.count / 8 {
            start -= if self.bytes[..start].ends_with(&[0xFF, 0x00]) { 2 } else { 1 };
        }
        (&self.bytes[start..end], end)
    }
}
