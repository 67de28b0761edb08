//! At most four things in place of a list: a frame or scan header has no more components (T.81 B.2.2, B.2.3), and a picture that
//! is decoded for each frame must allocate nothing for them.

use std::ops::{Deref, DerefMut};

/// Up to four values.
#[derive(Debug, Clone, Default)]
pub(super) struct Few<T> {
    values: [T; 4],
    len: usize,
}

impl<T: Default> Few<T> {
    /// All of `values`; `None` when one is missing or they are more than four.
    pub fn collect(values: impl Iterator<Item = Option<T>>) -> Option<Few<T>> {
        let mut few = Few::default();
        for value in values {
            *few.values.get_mut(few.len)? = value?;
            few.len += 1;
        }
        Some(few)
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[..self.len]
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fit() {
        for count in 0..7 {
            let few = Few::collect((0..count).map(Some));
            assert_eq!(few.as_deref(), (count <= 4).then_some(&[0, 1, 2, 3][..count.min(4)]));
        }
        assert!(Few::collect([Some(1), None].into_iter()).is_none());
    }
}
