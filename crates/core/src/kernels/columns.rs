//! Columns of a row in chunks of constant width.

/// Runs `$work` for consecutive chunks of `$width` columns, from column `$start` on, that together cover `$columns`: chunks of 16 where
/// they fit, then of 4, then of 1. The width is a constant, so that the compiler makes whole vectors of each chunk.
macro_rules! column_chunks {
    ($columns:expr, |$start:ident, $width:ident| $work:expr) => {{
        let columns: usize = $columns;
        let mut at = 0;
        while at + 16 <= columns {
            const $width: usize = 16;
            let $start = at;
            $work;
            at += 16;
        }
        while at + 4 <= columns {
            const $width: usize = 4;
            let $start = at;
            $work;
            at += 4;
        }
        while at < columns {
            const $width: usize = 1;
            let $start = at;
            $work;
            at += 1;
        }
    }};
}
pub(crate) use column_chunks;

/// `values[at..at + W]` as an array.
#[inline(always)]
pub fn array_at<T, const W: usize>(values: &[T], at: usize) -> &[T; W] {
    values[at..at + W].first_chunk().expect("W values")
}

/// [`array_at`], to write.
#[inline(always)]
pub fn array_at_mut<T, const W: usize>(values: &mut [T], at: usize) -> &mut [T; W] {
    values[at..at + W].first_chunk_mut().expect("W values")
}
