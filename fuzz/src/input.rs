//! The input of a target that is a program: numbers and bytes, taken from its start.
//!
//! Invariant: never ends; past the last byte everything is zero or empty.

/// What is left of the input.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `count` bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// Little-endian, of `width` bytes.
    fn number(&mut self, width: usize) -> u64 {
        self.bytes(width).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    pub fn u8(&mut self) -> u8 {
        self.number(1) as u8
    }

    pub fn u16(&mut self) -> u16 {
        self.number(2) as u16
    }

    pub fn u32(&mut self) -> u32 {
        self.number(4) as u32
    }

    pub fn u64(&mut self) -> u64 {
        self.number(8)
    }
}

/// The parts between lines that read `%%`.
pub(crate) fn parts(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    const CUT: &[u8] = b"\n%%\n";
    let mut rest = Some(input);
    std::iter::from_fn(move || {
        let whole = rest.take()?;
        let Some(at) = whole.windows(CUT.len()).position(|window| window == CUT) else { return Some(whole) };
        rest = Some(&whole[at + CUT.len()..]);
        Some(&whole[..at])
    })
}
