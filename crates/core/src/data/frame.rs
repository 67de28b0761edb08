//! A picture as a source delivers it.

use std::str::FromStr;

/// How the bytes of a [`Frame`] are laid out, without padding between rows (names follow the V4L2 pixel format documentation).
/// Chroma that is shared by two pixels, or by two rows, is rounded up at odd sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    /// Interleaved 8-bit R, G, B.
    Rgb24,
    /// Interleaved 8-bit B, G, R.
    Bgr24,
    /// R, G, B and a byte without meaning (or alpha, which is left out), in this order in memory.
    Rgbx,
    /// The byte without meaning, R, G, B.
    Xrgb,
    /// B, G, R and the byte without meaning.
    Bgrx,
    /// The byte without meaning, B, G, R.
    Xbgr,
    /// 16 bits a pixel, little-endian: 5 of red from the highest, 6 of green, 5 of blue.
    Rgb565,
    /// One byte a pixel, 0 = black, 255 = white whatever the range of [`Colour`].
    Grey,
    /// Two bytes a pixel, little-endian, 0 = black, 65535 = white; becomes 8 bits, rounded.
    Grey16,
    /// Packed 4:2:2: Y U Y V for two pixels.
    Yuyv,
    /// Packed 4:2:2: U Y V Y for two pixels.
    Uyvy,
    /// Packed 4:2:2: Y V Y U for two pixels.
    Yvyu,
    /// Packed 4:2:2: V Y U Y for two pixels.
    Vyuy,
    /// 4:2:0: a plane of Y, then one of alternating U and V.
    Nv12,
    /// 4:2:0: a plane of Y, then one of alternating V and U.
    Nv21,
    /// 4:2:2: a plane of Y, then one of alternating U and V for two pixels of each row.
    Nv16,
    /// 4:2:2: as [`PixelFormat::Nv16`], V before U.
    Nv61,
    /// 4:4:4: a plane of Y, then one of alternating U and V for each pixel: twice as wide.
    Nv24,
    /// 4:4:4: as [`PixelFormat::Nv24`], V before U.
    Nv42,
    /// 4:2:0: planes of Y, U and V, as `rpicam-vid` and `ffmpeg -pix_fmt yuv420p` write it.
    Yuv420,
    /// One JPEG picture, as cameras send it (Motion-JPEG). Only between a source and the decoder that decodes it
    /// (`preprocess::FrameDecoder`): no other stage takes it.
    Mjpg,
}

impl PixelFormat {
    /// Every format and its name in the configuration.
    pub const NAMES: [(PixelFormat, &str); 21] = [
        (PixelFormat::Rgb24, "rgb24"),
        (PixelFormat::Bgr24, "bgr24"),
        (PixelFormat::Rgbx, "rgbx"),
        (PixelFormat::Xrgb, "xrgb"),
        (PixelFormat::Bgrx, "bgrx"),
        (PixelFormat::Xbgr, "xbgr"),
        (PixelFormat::Rgb565, "rgb565"),
        (PixelFormat::Grey, "grey"),
        (PixelFormat::Grey16, "grey16"),
        (PixelFormat::Yuyv, "yuyv"),
        (PixelFormat::Uyvy, "uyvy"),
        (PixelFormat::Yvyu, "yvyu"),
        (PixelFormat::Vyuy, "vyuy"),
        (PixelFormat::Nv12, "nv12"),
        (PixelFormat::Nv21, "nv21"),
        (PixelFormat::Nv16, "nv16"),
        (PixelFormat::Nv61, "nv61"),
        (PixelFormat::Nv24, "nv24"),
        (PixelFormat::Nv42, "nv42"),
        (PixelFormat::Yuv420, "yuv420"),
        (PixelFormat::Mjpg, "mjpg"),
    ];

    /// What ffmpeg (`-pix_fmts`) and GStreamer (`video/x-raw`) call them, where that is another name in lower case; with alpha in the
    /// place of the byte without meaning, too.
    const ELSEWHERE: [(PixelFormat, &str); 23] = [
        (PixelFormat::Rgb24, "rgb"),
        (PixelFormat::Bgr24, "bgr"),
        (PixelFormat::Rgbx, "rgb0"),
        (PixelFormat::Rgbx, "rgba"),
        (PixelFormat::Xrgb, "0rgb"),
        (PixelFormat::Xrgb, "argb"),
        (PixelFormat::Bgrx, "bgr0"),
        (PixelFormat::Bgrx, "bgra"),
        (PixelFormat::Xbgr, "0bgr"),
        (PixelFormat::Xbgr, "abgr"),
        (PixelFormat::Rgb565, "rgb565le"),
        (PixelFormat::Rgb565, "rgb16"),
        (PixelFormat::Grey, "gray"),
        (PixelFormat::Grey, "gray8"),
        (PixelFormat::Grey16, "gray16le"),
        (PixelFormat::Grey16, "gray16_le"),
        (PixelFormat::Yuyv, "yuyv422"),
        (PixelFormat::Yuyv, "yuy2"),
        (PixelFormat::Uyvy, "uyvy422"),
        (PixelFormat::Yvyu, "yvyu422"),
        (PixelFormat::Yuv420, "yuv420p"),
        (PixelFormat::Yuv420, "i420"),
        (PixelFormat::Mjpg, "mjpeg"),
    ];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        PixelFormat::NAMES.iter().find(|(format, _)| *format == self).map_or("", |(_, name)| name)
    }

    /// Whether there is no colour in it.
    pub fn is_grey(self) -> bool {
        matches!(self, PixelFormat::Grey | PixelFormat::Grey16)
    }

    /// Whether [`Colour`] matters: samples of luma and chroma.
    pub fn is_yuv(self) -> bool {
        use PixelFormat::{Nv12, Nv16, Nv21, Nv24, Nv42, Nv61, Uyvy, Vyuy, Yuv420, Yuyv, Yvyu};
        matches!(self, Yuyv | Uyvy | Yvyu | Vyuy | Nv12 | Nv21 | Nv16 | Nv61 | Nv24 | Nv42 | Yuv420)
    }

    /// Bytes that one `width` x `height` frame takes, or `None` when it does not fit a `usize` or, compressed, has no fixed length.
    pub fn frame_len(self, width: u32, height: u32) -> Option<usize> {
        let (w, h) = (width as usize, height as usize);
        let luma = w.checked_mul(h)?;
        match self {
            PixelFormat::Rgb24 | PixelFormat::Bgr24 | PixelFormat::Nv24 | PixelFormat::Nv42 => luma.checked_mul(3),
            PixelFormat::Rgbx | PixelFormat::Xrgb | PixelFormat::Bgrx | PixelFormat::Xbgr => luma.checked_mul(4),
            PixelFormat::Rgb565 | PixelFormat::Grey16 => luma.checked_mul(2),
            PixelFormat::Grey => Some(luma),
            PixelFormat::Yuyv | PixelFormat::Uyvy | PixelFormat::Yvyu | PixelFormat::Vyuy => w.div_ceil(2).checked_mul(4)?.checked_mul(h),
            PixelFormat::Nv16 | PixelFormat::Nv61 => w.div_ceil(2).checked_mul(2)?.checked_add(w)?.checked_mul(h),
            PixelFormat::Nv12 | PixelFormat::Nv21 | PixelFormat::Yuv420 => {
                let chroma = w.div_ceil(2).checked_mul(h.div_ceil(2))?;
                luma.checked_add(chroma.checked_mul(2)?)
            }
            PixelFormat::Mjpg => None,
        }
    }
}

impl FromStr for PixelFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<PixelFormat, String> {
        let lower = text.to_ascii_lowercase();
        let known = PixelFormat::NAMES.iter().chain(&PixelFormat::ELSEWHERE).find(|(_, name)| *name == lower);
        let names = || PixelFormat::NAMES.map(|(_, name)| name).join(", ");
        known.map(|(format, _)| *format).ok_or_else(|| format!("unknown format '{text}': {}", names()))
    }
}

/// The matrix between R, G, B and Y, U, V.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Matrix {
    /// Standard definition: what webcams and `rpicam-vid` at VGA give.
    #[default]
    Bt601,
    /// High definition.
    Bt709,
}

/// How YUV samples of a [`Frame`] become RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Colour {
    /// From YUV to RGB.
    pub matrix: Matrix,
    /// Samples of 0 to 255 instead of 16 to 235 (luma) and 240 (chroma).
    pub full_range: bool,
}

impl FromStr for Colour {
    type Err = String;

    fn from_str(text: &str) -> Result<Colour, String> {
        let (matrix, full_range) = match text.to_ascii_lowercase().as_str() {
            "bt601" => (Matrix::Bt601, false),
            "bt601-full" => (Matrix::Bt601, true),
            "bt709" => (Matrix::Bt709, false),
            "bt709-full" => (Matrix::Bt709, true),
            _ => return Err(format!("unknown colour '{text}': bt601, bt601-full, bt709 or bt709-full")),
        };
        Ok(Colour { matrix, full_range })
    }
}

/// What a synthetic source knows about its own frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroundTruth {
    /// `[height, width]` segment ids, 0 = nothing.
    pub ids: Vec<u16>,
    /// `(segment id, class index)` for every id that occurs.
    pub classes: Vec<(u16, u16)>,
}

/// One picture: `data` holds exactly `format.frame_len(width, height)` bytes, or one JPEG picture of that size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Columns, pixels.
    pub width: u32,
    /// Rows, pixels.
    pub height: u32,
    /// How `data` is laid out.
    pub format: PixelFormat,
    /// Of YUV formats.
    pub colour: Colour,
    /// The pixels, or the JPEG picture.
    pub data: Vec<u8>,
    /// Counts up by one per frame that the source produced, whether or not it was processed.
    pub sequence: u64,
    /// When the picture was taken: CLOCK_MONOTONIC, nanoseconds.
    pub captured_ns: u64,
    /// The source's own time stamp, where it has one, as a recording or a ROS message does: nanoseconds since 1970. 0 = it has none.
    pub stamp_ns: u64,
    /// The JPEG picture that `data` was decoded from, as it came; empty where there is none.
    pub jpeg: Vec<u8>,
    /// Present when the source drew the picture itself.
    pub truth: Option<Box<GroundTruth>>,
}

impl Frame {
    /// A frame with sequence and times zero.
    pub fn new(width: u32, height: u32, format: PixelFormat, data: Vec<u8>) -> Frame {
        let (colour, jpeg) = (Colour::default(), Vec::new());
        Frame { width, height, format, colour, data, sequence: 0, captured_ns: 0, stamp_ns: 0, jpeg, truth: None }
    }

    /// An RGB frame with sequence and times zero. Panics when `data` is not `3 * width * height` bytes: a bug of the caller.
    pub fn rgb(width: u32, height: u32, data: Vec<u8>) -> Frame {
        assert_eq!(Some(data.len()), PixelFormat::Rgb24.frame_len(width, height), "RGB frame of {width}x{height}");
        Frame::new(width, height, PixelFormat::Rgb24, data)
    }

    /// Takes over all of `other` but its JPEG picture and its ground truth, and reuses the memory of `self`.
    pub fn copy_from(&mut self, other: &Frame) {
        let mut data = std::mem::take(&mut self.data);
        data.clear();
        data.extend_from_slice(&other.data);
        let Frame { width, height, format, colour, sequence, captured_ns, stamp_ns, .. } = *other;
        *self = Frame { colour, sequence, captured_ns, stamp_ns, ..Frame::new(width, height, format, data) };
    }
}

/// What is done with the orientation that a camera noted in a picture's EXIF block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exif {
    /// The picture is turned upright, as viewers and the reference's loader do.
    #[default]
    Apply,
    /// It stays as it is stored, as some annotation tools show it.
    Ignore,
}

impl FromStr for Exif {
    type Err = String;

    fn from_str(text: &str) -> Result<Exif, String> {
        match text {
            "apply" => Ok(Exif::Apply),
            "ignore" => Ok(Exif::Ignore),
            _ => Err(format!("'{text}' is neither apply nor ignore")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sizes_round_chroma_up() {
        assert_eq!(PixelFormat::Yuv420.frame_len(3, 3), Some(9 + 2 * 4));
        assert_eq!(PixelFormat::Rgb24.frame_len(3, 3), Some(27));
        assert_eq!(PixelFormat::Yuyv.frame_len(3, 3), Some(24));
        assert_eq!(PixelFormat::Yuv420.frame_len(640, 480), Some(640 * 480 * 3 / 2));
        assert_eq!(PixelFormat::Nv16.frame_len(3, 3), Some(9 + 3 * 4));
        assert_eq!(PixelFormat::Nv24.frame_len(3, 3), Some(9 + 3 * 6));
        assert_eq!(PixelFormat::Bgrx.frame_len(3, 3), Some(36));
        assert_eq!(PixelFormat::Rgb565.frame_len(3, 3), Some(18));
    }

    #[test]
    fn names_parse() {
        for (format, name) in PixelFormat::NAMES {
            assert_eq!(name.to_uppercase().parse(), Ok(format));
        }
        for (format, name) in PixelFormat::ELSEWHERE {
            assert_eq!(name.parse(), Ok(format));
            assert!(!PixelFormat::NAMES.iter().any(|(_, ours)| *ours == name), "{name} is a name of ours");
        }
        assert!("rgb25".parse::<PixelFormat>().unwrap_err().contains("nv12"));
        assert_eq!("bt709-full".parse(), Ok(Colour { matrix: Matrix::Bt709, full_range: true }));
        assert!("bt2020".parse::<Colour>().unwrap_err().contains("bt2020"));
    }
}
