//! How the bytes of a camera frame are laid out: V4L2 pixel formats, and the size that each gives a frame.
//!
//! Formats as in <https://docs.kernel.org/userspace-api/media/v4l/pixfmt.html>, without padding between rows or planes. Chroma that is
//! shared by two pixels, or by two rows, is rounded up at odd sizes. Refuses: to convert pixels.

/// A V4L2 pixel format (fourcc).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrameFormat {
    /// `RGB3`: interleaved 8-bit R, G, B.
    Rgb24,
    /// `BGR3`: interleaved 8-bit B, G, R.
    Bgr24,
    /// `XB24`: R, G, B and a byte without meaning, in this order in memory.
    Rgbx,
    /// `BX24`: the byte without meaning, R, G, B.
    Xrgb,
    /// `XR24`: B, G, R and the byte without meaning.
    Bgrx,
    /// `RX24`: the byte without meaning, B, G, R.
    Xbgr,
    /// `RGBP`: 16 bits a pixel, little-endian: 5 of red from the highest, 6 of green, 5 of blue.
    Rgb565,
    /// `GREY`: one byte a pixel, 0 to 255.
    Grey,
    /// `Y16 `: two bytes a pixel, little-endian, 0 to 65535.
    Grey16,
    /// `YUYV`: packed 4:2:2, Y U Y V for two pixels.
    Yuyv,
    /// `UYVY`: packed 4:2:2, U Y V Y.
    Uyvy,
    /// `YVYU`: packed 4:2:2, Y V Y U.
    Yvyu,
    /// `VYUY`: packed 4:2:2, V Y U Y.
    Vyuy,
    /// `NV12`: 4:2:0, a plane of Y, then one of alternating U and V.
    Nv12,
    /// `NV21`: 4:2:0, a plane of Y, then one of alternating V and U.
    Nv21,
    /// `NV16`: 4:2:2, a plane of Y, then one of alternating U and V.
    Nv16,
    /// `NV61`: 4:2:2, a plane of Y, then one of alternating V and U.
    Nv61,
    /// `NV24`: 4:4:4, a plane of Y, then one of alternating U and V, twice as wide.
    Nv24,
    /// `NV42`: 4:4:4, a plane of Y, then one of alternating V and U, twice as wide.
    Nv42,
    /// `YU12`: 4:2:0, planes of Y, U and V.
    Yuv420,
    /// `MJPG`: one JPEG picture; it may lack its Huffman tables, as many cameras' do.
    Mjpeg,
    /// Another one, by its code: of a daemon that knows more formats than this crate.
    Other(u32),
}

use FrameFormat::*;

/// Every format and its code.
const CODES: [(FrameFormat, &[u8; 4]); 21] = [
    (Rgb24, b"RGB3"),
    (Bgr24, b"BGR3"),
    (Rgbx, b"XB24"),
    (Xrgb, b"BX24"),
    (Bgrx, b"XR24"),
    (Xbgr, b"RX24"),
    (Rgb565, b"RGBP"),
    (Grey, b"GREY"),
    (Grey16, b"Y16 "),
    (Yuyv, b"YUYV"),
    (Uyvy, b"UYVY"),
    (Yvyu, b"YVYU"),
    (Vyuy, b"VYUY"),
    (Nv12, b"NV12"),
    (Nv21, b"NV21"),
    (Nv16, b"NV16"),
    (Nv61, b"NV61"),
    (Nv24, b"NV24"),
    (Nv42, b"NV42"),
    (Yuv420, b"YU12"),
    (Mjpeg, b"MJPG"),
];

impl FrameFormat {
    /// Every format that this crate knows.
    pub fn all() -> impl Iterator<Item = FrameFormat> {
        CODES.into_iter().map(|(format, _)| format)
    }

    /// The format of a code as [`SlotInfo::frame_format`](crate::layout::SlotInfo::frame_format) has it.
    pub fn from_fourcc(code: u32) -> FrameFormat {
        let known = CODES.iter().find(|(_, letters)| u32::from_le_bytes(**letters) == code);
        known.map_or(Other(code), |(format, _)| *format)
    }

    /// The code, whose lowest byte is its first letter.
    pub fn fourcc(self) -> u32 {
        match self {
            Other(code) => code,
            known => CODES.iter().find(|(format, _)| *format == known).map_or(0, |(_, letters)| u32::from_le_bytes(**letters)),
        }
    }

    /// The code's letters, without the spaces at its end; what is no letter is a question mark.
    pub fn name(self) -> String {
        let letters = self.fourcc().to_le_bytes();
        let shown = letters.trim_ascii_end().iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' });
        shown.collect()
    }

    /// Bytes from row to row of the first plane; 0 when it is compressed, `None` for [`FrameFormat::Other`].
    pub fn stride(self, width: u32) -> Option<usize> {
        let width = width as usize;
        match self {
            Rgb24 | Bgr24 => width.checked_mul(3),
            Rgbx | Xrgb | Bgrx | Xbgr => width.checked_mul(4),
            Rgb565 | Grey16 => width.checked_mul(2),
            Yuyv | Uyvy | Yvyu | Vyuy => width.div_ceil(2).checked_mul(4),
            Grey | Nv12 | Nv21 | Nv16 | Nv61 | Nv24 | Nv42 | Yuv420 => Some(width),
            Mjpeg => Some(0),
            Other(_) => None,
        }
    }

    /// Bytes of a frame of this size; `None` when it is compressed or unknown, or does not fit a `usize`.
    pub fn frame_bytes(self, width: u32, height: u32) -> Option<usize> {
        let first = self.stride(width)?.checked_mul(height as usize)?;
        let (half, half_rows) = (width.div_ceil(2) as usize, height.div_ceil(2) as usize);
        match self {
            Mjpeg => None,
            Nv12 | Nv21 | Yuv420 => first.checked_add(half.checked_mul(half_rows)?.checked_mul(2)?),
            Nv16 | Nv61 => first.checked_add(half.checked_mul(height as usize)?.checked_mul(2)?),
            Nv24 | Nv42 => first.checked_mul(3),
            _ => Some(first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lead_there_and_back() {
        for format in FrameFormat::all() {
            assert_eq!(FrameFormat::from_fourcc(format.fourcc()), format);
        }
        assert_eq!((Rgb24.fourcc(), Grey16.name().as_str()), (0x3342_4752, "Y16"));
        let other = FrameFormat::from_fourcc(u32::from_le_bytes(*b"H2\x1b4"));
        assert_eq!((other.name().as_str(), other.stride(8), other.frame_bytes(8, 8)), ("H2?4", None, None));
    }

    #[test]
    fn odd_sizes_round_chroma_up() {
        let sizes = [(Rgb24, 27), (Bgrx, 36), (Rgb565, 18), (Grey, 9), (Yuyv, 24), (Nv12, 17), (Nv16, 21), (Nv24, 27), (Yuv420, 17)];
        for (format, bytes) in sizes {
            assert_eq!(format.frame_bytes(3, 3), Some(bytes), "{format:?}");
        }
        assert_eq!((Mjpeg.frame_bytes(3, 3), Mjpeg.stride(3)), (None, Some(0)));
    }
}
