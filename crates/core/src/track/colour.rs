//! Colours of single pixels of a frame, as the frame stores them.
//!
//! A tracker compares colours of one source with each other, so YUV stays YUV: whole frames are not converted for some thousand pixels.

use crate::data::{Frame, PixelFormat};

/// Three components of pixel (`x`, `y`), 0 to 255, in an order that depends on the format only; grey gives its level three times. Zeros for
/// a compressed frame.
#[inline]
pub fn components(frame: &Frame, x: usize, y: usize) -> [u8; 3] {
    use PixelFormat::{Bgr24, Bgrx, Grey, Grey16, Mjpg, Nv12, Nv16, Nv21, Nv24, Nv42, Nv61, Rgb24, Rgb565, Rgbx, Xbgr, Xrgb};
    use PixelFormat::{Uyvy, Vyuy, Yuv420, Yuyv, Yvyu};
    let (data, width, height) = (&frame.data, frame.width as usize, frame.height as usize);
    let (at, pixels) = (y * width + x, width * height);
    let three = |first: usize| [data[first], data[first + 1], data[first + 2]];
    let half = width.div_ceil(2);
    match frame.format {
        Rgb24 | Bgr24 => three(3 * at),
        Rgbx | Bgrx => three(4 * at),
        Xrgb | Xbgr => three(4 * at + 1),
        Rgb565 => {
            let bits = u16::from_le_bytes([data[2 * at], data[2 * at + 1]]);
            [(bits >> 8) as u8 & 0xf8, (bits >> 3) as u8 & 0xfc, (bits << 3) as u8]
        }
        Grey => [data[at]; 3],
        Grey16 => [data[2 * at + 1]; 3],
        // two pixels in four bytes: the luma of each, and the chroma of both
        Yuyv | Yvyu => {
            let pair = 4 * (y * half + x / 2);
            [data[pair + 2 * (x % 2)], data[pair + 1], data[pair + 3]]
        }
        Uyvy | Vyuy => {
            let pair = 4 * (y * half + x / 2);
            [data[pair + 1 + 2 * (x % 2)], data[pair], data[pair + 2]]
        }
        Nv12 | Nv21 => chroma_pair(data, at, pixels + 2 * (y / 2 * half + x / 2)),
        Nv16 | Nv61 => chroma_pair(data, at, pixels + 2 * (y * half + x / 2)),
        Nv24 | Nv42 => chroma_pair(data, at, pixels + 2 * at),
        Yuv420 => {
            let (u, plane) = (pixels + y / 2 * half + x / 2, half * height.div_ceil(2));
            [data[at], data[u], data[u + plane]]
        }
        Mjpg => [0; 3],
    }
}

fn chroma_pair(data: &[u8], luma: usize, chroma: usize) -> [u8; 3] {
    [data[luma], data[chroma], data[chroma + 1]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Frame;

    /// Every format, odd sizes: the last pixel lies in the data, and a pixel's components change when its own bytes do.
    #[test]
    fn every_format_has_the_bytes_of_its_pixels() {
        for (format, name) in PixelFormat::NAMES {
            let Some(length) = format.frame_len(5, 3) else { continue };
            let frame = Frame::new(5, 3, format, (0..length).map(|at| at as u8).collect());
            let mut seen: Vec<[u8; 3]> = (0..15).map(|at| components(&frame, at % 5, at / 5)).collect();
            seen.sort_unstable();
            seen.dedup();
            let distinct = if format == PixelFormat::Rgb565 { 2 } else { 8 };
            assert!(seen.len() >= distinct, "{name}: {seen:?}");
        }
        let frame = |format, data: &[u8]| Frame::new(2, 1, format, data.to_vec());
        assert_eq!(components(&frame(PixelFormat::Yuyv, &[10, 1, 20, 2]), 1, 0), [20, 1, 2]);
        assert_eq!(components(&frame(PixelFormat::Uyvy, &[1, 10, 2, 20]), 1, 0), [20, 1, 2]);
        assert_eq!(components(&frame(PixelFormat::Yuv420, &[10, 20, 1, 2]), 1, 0), [20, 1, 2]);
        assert_eq!(components(&frame(PixelFormat::Nv12, &[10, 20, 1, 2]), 0, 0), [10, 1, 2]);
        assert_eq!(components(&frame(PixelFormat::Grey16, &[9, 10, 8, 20]), 1, 0), [20; 3]);
        assert_eq!(components(&frame(PixelFormat::Xrgb, &[0, 1, 2, 3, 0, 4, 5, 6]), 1, 0), [4, 5, 6]);
        assert_eq!(components(&frame(PixelFormat::Rgb565, &[0, 0, 0xff, 0xff]), 1, 0), [0xf8, 0xfc, 0xf8]);
    }
}
