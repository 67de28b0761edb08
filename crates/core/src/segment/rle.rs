//! COCO run lengths.

use crate::data::Rle;

/// Run lengths of a `[height, width]` bitmap in column-major order, the first run being of zeros (it may be empty), as
/// pycocotools' uncompressed form.
pub fn encode(bitmap: &[bool], width: usize) -> Rle {
    let height = bitmap.len() / width;
    let mut counts = Vec::new();
    let (mut value, mut run) = (false, 0u32);
    for x in 0..width {
        for y in 0..height {
            if bitmap[y * width + x] != value {
                counts.push(run);
                (value, run) = (!value, 0);
            }
            run += 1;
        }
    }
    counts.push(run);
    Rle { counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_first() {
        // 0 1
        // 1 1
        let rle = encode(&[false, true, true, true], 2);
        assert_eq!(rle.counts, [1, 3]);
        assert_eq!(encode(&[true, false, true, false], 2).counts, [0, 2, 2]);
        assert_eq!(encode(&[false; 6], 3).counts, [6]);
    }
}
