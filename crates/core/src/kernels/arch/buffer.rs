//! Memory that starts at a cache line.

use std::fmt::{Debug, Formatter};
use std::ops::{Deref, DerefMut};

/// Types of which every bit pattern is a value.
///
/// # Safety
/// Any bytes must be a valid value, and the alignment at most 64.
pub unsafe trait Element: Copy + Default + Send + Sync + 'static {}
// SAFETY: plain numbers.
unsafe impl Element for f32 {}
// SAFETY: plain numbers.
unsafe impl Element for i32 {}
// SAFETY: plain numbers.
unsafe impl Element for i8 {}
// SAFETY: plain numbers.
unsafe impl Element for u8 {}
// SAFETY: plain numbers.
unsafe impl Element for u16 {}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A vector of numbers that starts at a multiple of 64 bytes, so that no vector load of a panel crosses a cache line.
#[derive(Clone, Default)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Aligned<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Aligned<T> {
        let mut new = Aligned { lines: Vec::new(), len: 0, element: std::marker::PhantomData };
        new.resize(len);
        new
    }

    /// Changes the length; what is new is zero, what was there stays. Shrinking keeps the memory.
    pub fn resize(&mut self, len: usize) {
        let lines = (len * size_of::<T>()).div_ceil(64);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([0; 64]));
        }
        self.len = len;
    }
}

impl<T: Element> Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the lines hold at least `len` elements, are aligned to 64 and initialized, and any bytes are a `T`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Element> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: the lines hold at least `len` elements, are aligned to 64 and initialized, and any bytes are a `T`; the borrow of the lines
        // is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl<T> Debug for Aligned<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} values]", self.len)
    }
}

impl<T: Element + PartialEq> PartialEq for Aligned<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_a_line_and_keeps_its_content() {
        let mut buffer = Aligned::<f32>::zeros(3);
        buffer.copy_from_slice(&[1.0, 2.0, 3.0]);
        buffer.resize(100);
        assert_eq!((buffer.as_ptr() as usize % 64, &buffer[..4], buffer.len()), (0, &[1.0, 2.0, 3.0, 0.0][..], 100));
    }
}
