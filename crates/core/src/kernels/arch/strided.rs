//! Parts of the rows of a matrix, checked once for all rows: a check per row costs as much as the few values that a tile has in it.

use std::marker::PhantomData;

/// Groups of `N` values, the beginnings `stride` values apart.
pub struct StridedMut<'a, T, const N: usize> {
    next: *mut T,
    stride: usize,
    left: usize,
    values: PhantomData<&'a mut [T]>,
}

/// `count` groups of `N` values in `values`, the first at its start. Panics where they overlap or do not fit: a bug of the caller.
#[inline(always)]
pub fn strided_mut<T, const N: usize>(values: &mut [T], stride: usize, count: usize) -> StridedMut<'_, T, N> {
    assert!(count == 0 || (stride >= N && (count - 1).saturating_mul(stride).saturating_add(N) <= values.len()));
    StridedMut { next: values.as_mut_ptr(), stride, left: count, values: PhantomData }
}

impl<'a, T, const N: usize> Iterator for StridedMut<'a, T, N> {
    type Item = &'a mut [T; N];

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let group = self.next.cast::<[T; N]>();
        self.next = self.next.wrapping_add(self.stride);
        // SAFETY: the constructor has checked that all groups lie in the slice and do not overlap; each is given out once.
        Some(unsafe { &mut *group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_groups_and_no_more_than_fit() {
        let mut values: Vec<i32> = (0..11).collect();
        for group in strided_mut::<_, 3>(&mut values, 4, 3) {
            group.iter_mut().for_each(|value| *value = -*value);
        }
        assert_eq!(values, [0, -1, -2, 3, -4, -5, -6, 7, -8, -9, -10]);
        assert_eq!(strided_mut::<_, 3>(&mut values[..0], 4, 0).count(), 0);
        for (stride, count) in [(4, 4), (5, 3), (2, 2)] {
            assert!(std::panic::catch_unwind(|| strided_mut::<_, 3>(&mut [0; 11], stride, count).count()).is_err());
        }
    }
}
