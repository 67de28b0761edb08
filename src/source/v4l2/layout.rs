//! Where the pixels of a frame lie in the driver's memory, and how they get out of it.
//!
//! A driver may pad its rows and keep planes in one memory area or in several; a [`Frame`](eomt_edge_core::data::Frame) has neither padding nor
//! holes. Layouts: <https://docs.kernel.org/userspace-api/media/v4l/pixfmt.html>.

use eomt_edge_core::data::{Colour, Matrix, PixelFormat};

use super::sys::{DriverFormat, PLANES_MAX};

/// Four-character codes of the formats we take. A code with `M` keeps its planes in separate memory areas.
///
/// `RGB4` and `BGR4` are the older codes of `BX24` and `XR24`, with a byte that some drivers fill with alpha. The names of the newer
/// codes are those of DRM, which go by significance in a little-endian word: backwards in memory.
const CODES: [(&[u8; 4], PixelFormat); 33] = [
    (b"YUYV", PixelFormat::Yuyv),
    (b"UYVY", PixelFormat::Uyvy),
    (b"YVYU", PixelFormat::Yvyu),
    (b"VYUY", PixelFormat::Vyuy),
    (b"NV12", PixelFormat::Nv12),
    (b"NM12", PixelFormat::Nv12),
    (b"NV21", PixelFormat::Nv21),
    (b"NM21", PixelFormat::Nv21),
    (b"YU12", PixelFormat::Yuv420),
    (b"YM12", PixelFormat::Yuv420),
    (b"NV16", PixelFormat::Nv16),
    (b"NM16", PixelFormat::Nv16),
    (b"NV61", PixelFormat::Nv61),
    (b"NM61", PixelFormat::Nv61),
    (b"NV24", PixelFormat::Nv24),
    (b"NV42", PixelFormat::Nv42),
    (b"GREY", PixelFormat::Grey),
    (b"Y16 ", PixelFormat::Grey16),
    (b"RGB3", PixelFormat::Rgb24),
    (b"BGR3", PixelFormat::Bgr24),
    (b"RGB4", PixelFormat::Xrgb),
    (b"BX24", PixelFormat::Xrgb),
    (b"BA24", PixelFormat::Xrgb),
    (b"BGR4", PixelFormat::Bgrx),
    (b"XR24", PixelFormat::Bgrx),
    (b"AR24", PixelFormat::Bgrx),
    (b"XB24", PixelFormat::Rgbx),
    (b"AB24", PixelFormat::Rgbx),
    (b"RX24", PixelFormat::Xbgr),
    (b"RA24", PixelFormat::Xbgr),
    (b"RGBP", PixelFormat::Rgb565),
    (b"MJPG", PixelFormat::Mjpg),
    (b"JPEG", PixelFormat::Mjpg),
];

/// Our format of a driver's code.
pub fn pixel_format(fourcc: [u8; 4]) -> Option<PixelFormat> {
    CODES.iter().find(|(code, _)| **code == fourcc).map(|(_, format)| *format)
}

/// A code for people: `YUYV`, whatever bytes it has; short ones are filled up with spaces, which are left out.
pub fn code_name(fourcc: [u8; 4]) -> String {
    fourcc.trim_ascii_end().iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' }).collect()
}

/// One plane of pixels: `rows` rows of `len` bytes, `stride` bytes apart, from `start` in memory area `memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plane {
    memory: usize,
    start: usize,
    stride: usize,
    len: usize,
    rows: usize,
}

/// How to read the frames of one driver format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub format: PixelFormat,
    pub width: u32,
    pub height: u32,
    pub colour: Colour,
    planes: Vec<Plane>,
    /// Grey or RGB levels that the driver says run from 16 to 235 (V4L2_QUANTIZATION_LIM_RANGE), as some HDMI receivers have them: 16
    /// bits from 4096 to 60160, 5 and 6 bits in proportion.
    limited_levels: bool,
    /// Bytes of a frame without padding; unknown when it is compressed.
    len: Option<usize>,
}

/// Why the bytes in a buffer are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {found} bytes where {needed} are needed")]
pub struct ShortFrame {
    pub found: usize,
    pub needed: usize,
}

impl Layout {
    /// # Errors
    /// A sentence when the format is not one of ours, or makes no sense.
    pub fn of(driver: &DriverFormat) -> Result<Layout, String> {
        let code = code_name(driver.fourcc);
        let format = pixel_format(driver.fourcc).ok_or_else(|| format!("the driver gives {code}, which is not supported"))?;
        let (width, height) = (driver.width, driver.height);
        if !(1..=16384).contains(&width) || !(1..=16384).contains(&height) {
            return Err(format!("the driver gives frames of {width}x{height}"));
        }
        use v4l::v4l_sys::*;
        // one field after the other would be two small pictures; drivers that do not fill the field have whole ones
        #[allow(non_upper_case_globals, reason = "names of the C header")]
        if let v4l2_field_V4L2_FIELD_SEQ_TB | v4l2_field_V4L2_FIELD_SEQ_BT | v4l2_field_V4L2_FIELD_ALTERNATE = driver.field {
            return Err("the driver gives fields one by one instead of whole pictures (V4L2_FIELD_ALTERNATE or SEQ)".to_owned());
        }
        let len = format.frame_len(width, height);
        let planes = if format == PixelFormat::Mjpg { Vec::new() } else { planes(format, driver)? };
        let plain = !format.is_yuv() && format != PixelFormat::Mjpg;
        let limited_levels = plain && driver.quantization == v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE;
        Ok(Layout { format, width, height, colour: colour(driver, format), planes, limited_levels, len })
    }

    /// Whether a copied frame can be what was agreed on: a JPEG picture must be one, and of this size.
    pub fn agrees(&self, frame: &[u8]) -> bool {
        self.format != PixelFormat::Mjpg || jpeg_size(frame) == Some((self.width, self.height))
    }

    /// Copies a frame without its padding. `memory` holds what the driver says is used of each memory area.
    pub fn copy(&self, memory: &[&[u8]], frame: &mut Vec<u8>) -> Result<(), ShortFrame> {
        let Some(len) = self.len else {
            let bytes = memory.first().copied().unwrap_or_default();
            frame.clear();
            frame.extend_from_slice(bytes);
            return if bytes.is_empty() { Err(ShortFrame { found: 0, needed: 1 }) } else { Ok(()) };
        };
        for plane in &self.planes {
            // the last row may lack its padding
            let needed = plane.start + plane.stride * (plane.rows - 1) + plane.len;
            let found = memory.get(plane.memory).map_or(0, |area| area.len());
            if found < needed {
                return Err(ShortFrame { found, needed });
            }
        }
        frame.resize(len, 0);
        let mut rest = frame.as_mut_slice();
        for plane in &self.planes {
            let (target, others) = rest.split_at_mut(plane.len * plane.rows);
            let source = &memory[plane.memory][plane.start..];
            if plane.stride == plane.len {
                target.copy_from_slice(&source[..target.len()]);
            } else {
                for (to, from) in target.chunks_exact_mut(plane.len).zip(source.chunks(plane.stride)) {
                    to.copy_from_slice(&from[..plane.len]);
                }
            }
            rest = others;
        }
        if self.limited_levels {
            to_full_range(self.format, frame);
        }
        Ok(())
    }
}

/// Levels of grey or RGB that run from 16 to 235, or as much of what the format's bits hold, to all that they hold.
fn to_full_range(format: PixelFormat, frame: &mut [u8]) {
    match format {
        PixelFormat::Grey16 => {
            for level in frame.as_chunks_mut::<2>().0 {
                let above = u32::from(u16::from_le_bytes(*level)).saturating_sub(16 << 8);
                *level = ((above * 0xFFFF / (219 << 8)).min(0xFFFF) as u16).to_le_bytes();
            }
        }
        PixelFormat::Rgb565 => {
            for pixel in frame.as_chunks_mut::<2>().0 {
                let bits = u32::from(u16::from_le_bytes(*pixel));
                let full = |level: u32, max: u32| u32::from(FULL_RANGE[((level * 255 + max / 2) / max) as usize]) * max / 255;
                *pixel = ((full(bits >> 11, 31) << 11 | full(bits >> 5 & 63, 63) << 5 | full(bits & 31, 31)) as u16).to_le_bytes();
            }
        }
        _ => frame.iter_mut().for_each(|level| *level = FULL_RANGE[usize::from(*level)]),
    }
}

/// 16 to 235 as 0 to 255, rounded.
const FULL_RANGE: [u8; 256] = {
    let mut levels = [0; 256];
    let mut level = 16;
    while level < 256 {
        let full = ((level - 16) * 255 + 109) / 219;
        levels[level] = if full > 255 { 255 } else { full as u8 };
        level += 1;
    }
    levels
};

/// (width, height) as a JPEG picture's frame header has it (ITU-T T.81 B.2.2); `None` when there is none.
fn jpeg_size(jpeg: &[u8]) -> Option<(u32, u32)> {
    let mut segments = jpeg.strip_prefix(&[0xFF, 0xD8])?;
    loop {
        match *segments {
            [0xFF, 0xFF, ..] => segments = &segments[1..],
            // start of frame, whichever coding; C4, C8 and CC are other segments
            [0xFF, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF, _, _, _, a, b, c, d, ..] => {
                return Some((u16::from_be_bytes([c, d]).into(), u16::from_be_bytes([a, b]).into()));
            }
            [0xFF, kind, high, low, ..] if kind != 0xDA => segments = segments.get(2 + usize::from(u16::from_be_bytes([high, low]))..)?,
            _ => return None,
        }
    }
}

/// Planes follow each other within a memory area; each area has its own stride. A code without `M` keeps all in the first one.
fn planes(format: PixelFormat, driver: &DriverFormat) -> Result<Vec<Plane>, String> {
    let (width, height) = (driver.width as usize, driver.height as usize);
    let (half, half_rows) = (width.div_ceil(2), height.div_ceil(2));
    // (bytes, rows) of each plane, and its stride as a fraction of the first one's
    let shapes: &[(usize, usize, (usize, usize))] = match format {
        PixelFormat::Yuyv | PixelFormat::Uyvy | PixelFormat::Yvyu | PixelFormat::Vyuy => &[(4 * half, height, (1, 1))],
        PixelFormat::Rgb24 | PixelFormat::Bgr24 => &[(3 * width, height, (1, 1))],
        PixelFormat::Rgbx | PixelFormat::Xrgb | PixelFormat::Bgrx | PixelFormat::Xbgr => &[(4 * width, height, (1, 1))],
        PixelFormat::Rgb565 | PixelFormat::Grey16 => &[(2 * width, height, (1, 1))],
        PixelFormat::Grey => &[(width, height, (1, 1))],
        PixelFormat::Nv12 | PixelFormat::Nv21 => &[(width, height, (1, 1)), (2 * half, half_rows, (1, 1))],
        PixelFormat::Nv16 | PixelFormat::Nv61 => &[(width, height, (1, 1)), (2 * half, height, (1, 1))],
        PixelFormat::Nv24 | PixelFormat::Nv42 => &[(width, height, (1, 1)), (2 * width, height, (2, 1))],
        PixelFormat::Yuv420 | PixelFormat::Mjpg => &[(width, height, (1, 1)), (half, half_rows, (1, 2)), (half, half_rows, (1, 2))],
    };
    let separate = driver.planes.len() > 1;
    if separate && (driver.planes.len() != shapes.len() || shapes.len() > PLANES_MAX) {
        return Err(format!("the driver keeps {} in {} memory planes", code_name(driver.fourcc), driver.planes.len()));
    }
    let stride_of = |memory: usize| driver.planes.get(memory).map_or(0, |plane| plane.0 as usize);
    let mut start = 0;
    let mut found = Vec::new();
    for (index, &(len, rows, (times, parts))) in shapes.iter().enumerate() {
        let (memory, given) = if separate { (index, stride_of(index)) } else { (0, stride_of(0) * times / parts) };
        // a driver that says nothing has no padding
        let stride = if given == 0 { len } else { given };
        if stride < len {
            return Err(format!("the driver gives rows of {stride} bytes where {len} are needed"));
        }
        found.push(Plane { memory, start: if separate { 0 } else { start }, stride, len, rows });
        start += stride * rows;
    }
    Ok(found)
}

/// What the driver says of its YUV samples; defaults as `V4L2_MAP_YCBCR_ENC_DEFAULT` and `V4L2_MAP_QUANTIZATION_DEFAULT` of
/// <linux/videodev2.h> have them. BT.2020 and SMPTE 240M are read as BT.709, which is nearest.
fn colour(driver: &DriverFormat, format: PixelFormat) -> Colour {
    use v4l::v4l_sys::*;
    #[allow(non_upper_case_globals, reason = "names of the C header")]
    let matrix = match driver.ycbcr_encoding {
        v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_DEFAULT => match driver.colorspace {
            v4l2_colorspace_V4L2_COLORSPACE_REC709
            | v4l2_colorspace_V4L2_COLORSPACE_DCI_P3
            | v4l2_colorspace_V4L2_COLORSPACE_BT2020
            | v4l2_colorspace_V4L2_COLORSPACE_SMPTE240M => Matrix::Bt709,
            _ => Matrix::Bt601,
        },
        v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_601 | v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV601 | v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_SYCC => {
            Matrix::Bt601
        }
        _ => Matrix::Bt709,
    };
    #[allow(non_upper_case_globals, reason = "names of the C header")]
    let full_range = match driver.quantization {
        v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE => true,
        v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE => false,
        _ => driver.colorspace == v4l2_colorspace_V4L2_COLORSPACE_JPEG,
    };
    // JFIF: a decoder gives RGB whatever the driver says
    if format == PixelFormat::Mjpg { Colour::default() } else { Colour { matrix, full_range } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(code: &[u8; 4], (width, height): (u32, u32), planes: &[(u32, u32)]) -> DriverFormat {
        DriverFormat { fourcc: *code, width, height, planes: planes.to_vec(), field: 1, colorspace: 0, ycbcr_encoding: 0, quantization: 0 }
    }

    /// Rows of `rows` bytes with padding of 0xEE between them.
    fn padded(rows: &[&[u8]], stride: usize) -> Vec<u8> {
        rows.iter().flat_map(|row| row.iter().copied().chain(std::iter::repeat(0xEE)).take(stride)).collect()
    }

    #[test]
    fn padding_goes_and_planes_follow_each_other() {
        let luma: [&[u8]; 3] = [&[1, 2, 3], &[4, 5, 6], &[7, 8, 9]];
        let pairs: [&[u8]; 2] = [&[11, 12, 13, 14], &[15, 16, 17, 18]];
        let (u, v): ([&[u8]; 2], [&[u8]; 2]) = ([&[21, 22], &[23, 24]], [&[31, 32], &[33, 34]]);
        let tight = |parts: &[&[&[u8]]]| parts.iter().flat_map(|rows| rows.concat()).collect::<Vec<u8>>();
        let nv12 = tight(&[&luma, &pairs]);
        let yuv420 = tight(&[&luma, &u, &v]);
        let mut frame = vec![99; 3];

        let layout = Layout::of(&driver(b"NV12", (3, 3), &[(8, 40)])).unwrap();
        let memory = [padded(&luma, 8), padded(&pairs, 8)].concat();
        layout.copy(&[&memory], &mut frame).unwrap();
        assert_eq!(frame, nv12);
        // the last row without its padding
        layout.copy(&[&memory[..24 + 8 + 4]], &mut frame).unwrap();
        assert_eq!(layout.copy(&[&memory[..24 + 8 + 3]], &mut frame), Err(ShortFrame { found: 35, needed: 36 }));

        let layout = Layout::of(&driver(b"NM12", (3, 3), &[(8, 24), (6, 12)])).unwrap();
        layout.copy(&[&padded(&luma, 8), &padded(&pairs, 6)], &mut frame).unwrap();
        assert_eq!(frame, nv12);
        assert!(layout.copy(&[&padded(&luma, 8)], &mut frame).is_err());

        let layout = Layout::of(&driver(b"YU12", (3, 3), &[(8, 40)])).unwrap();
        layout.copy(&[&[padded(&luma, 8), padded(&u, 4), padded(&v, 4)].concat()], &mut frame).unwrap();
        assert_eq!(frame, yuv420);

        let layout = Layout::of(&driver(b"YM12", (3, 3), &[(3, 9), (2, 4), (2, 4)])).unwrap();
        layout.copy(&[&luma.concat(), &u.concat(), &v.concat()], &mut frame).unwrap();
        assert_eq!(frame, yuv420);
    }

    /// Strides as the kernel's `v4l2_fill_pixfmt` gives them: the chroma of 4:2:2 is as wide as the luma, that of 4:4:4 twice.
    #[test]
    fn chroma_rows_are_as_far_apart_as_their_format_says() {
        let luma: [&[u8]; 2] = [&[1, 2, 3], &[4, 5, 6]];
        let mut frame = Vec::new();
        for (code, chroma) in [(b"NV16", [[11u8, 12, 13, 14].as_slice(), &[15, 16, 17, 18]]), (b"NV24", [&[11; 6], &[12; 6]])] {
            let (one, two) = (padded(&luma, 16), padded(&chroma, if code == b"NV24" { 32 } else { 16 }));
            let tight = [luma.concat(), chroma.concat()].concat();
            Layout::of(&driver(code, (3, 2), &[(16, 96)])).unwrap().copy(&[&[one, two].concat()], &mut frame).unwrap();
            assert_eq!(frame, tight, "{}", code_name(*code));
        }
        let layout = Layout::of(&driver(b"NM16", (3, 2), &[(16, 32), (8, 16)])).unwrap();
        let (pairs, one): ([&[u8]; 2], _) = ([&[11, 12, 13, 14], &[15, 16, 17, 18]], padded(&luma, 16));
        layout.copy(&[&one, &padded(&pairs, 8)], &mut frame).unwrap();
        assert_eq!(frame, [luma.concat(), pairs.concat()].concat());
    }

    /// `<linux/videodev2.h>` says the order in memory: `V4L2_PIX_FMT_XBGR32 v4l2_fourcc('X', 'R', '2', '4') /* 32  BGRX-8-8-8-8 */`. Its
    /// two oldest codes leave out the fourth byte, which follows BGR and precedes RGB (`pixfmt-rgb.html`).
    #[test]
    fn the_codes_of_32_bits_have_their_bytes_where_the_header_says() {
        for (code, order) in [
            (b"BGR4", b"BGRX"),
            (b"AR24", b"BGRA"),
            (b"XR24", b"BGRX"),
            (b"RA24", b"ABGR"),
            (b"RX24", b"XBGR"),
            (b"RGB4", b"XRGB"),
            (b"AB24", b"RGBA"),
            (b"XB24", b"RGBX"),
            (b"BA24", b"ARGB"),
            (b"BX24", b"XRGB"),
        ] {
            let mut frame = eomt_edge_core::data::Frame::rgb(1, 1, vec![0; 3]);
            let layout = Layout::of(&driver(code, (1, 1), &[(16, 16)])).unwrap();
            layout.copy(&[order], &mut frame.data).unwrap();
            frame.format = layout.format;
            assert_eq!(eomt_edge_core::preprocess::RgbConverter::new().rgb(&frame), b"RGB", "{}", code_name(*code));
        }
        assert_eq!((code_name(*b"Y16 "), pixel_format(*b"Y16 ")), ("Y16".to_owned(), Some(PixelFormat::Grey16)));
    }

    #[test]
    fn every_code_takes_as_many_bytes_as_its_format_says() {
        for (code, format) in CODES.into_iter().filter(|(_, format)| *format != PixelFormat::Mjpg) {
            let separate = code[1] == b'M';
            let planes = match (separate, format) {
                (false, _) => vec![(0, 0)],
                (true, PixelFormat::Yuv420) => vec![(0, 0); 3],
                (true, _) => vec![(0, 0); 2],
            };
            let layout = Layout::of(&driver(code, (5, 3), &planes)).unwrap();
            let areas = vec![vec![7u8; 100]; planes.len()];
            let mut frame = Vec::new();
            layout.copy(&areas.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut frame).unwrap();
            assert_eq!(Some(frame.len()), format.frame_len(5, 3), "{}", code_name(*code));
        }
    }

    #[test]
    fn limited_levels_of_grey_become_full_ones_and_others_stay() {
        let limited = |code: &[u8; 4], quantization: u32| DriverFormat { quantization, ..driver(code, (2, 2), &[(2, 4)]) };
        let mut frame = Vec::new();
        // 16 bits hold 256 times as much; of 5 and 6 bits, 2 is 16 of 255 (4) and 29 is 238 (59 of 63)
        let wide = |levels: [u32; 4]| levels.map(|level| (level as u16).to_le_bytes()).concat();
        let layout = Layout::of(&DriverFormat { quantization: 2, ..driver(b"Y16 ", (2, 2), &[(4, 8)]) }).unwrap();
        layout.copy(&[&wide([0, 16 << 8, 126 << 8, 235 << 8])], &mut frame).unwrap();
        assert_eq!(frame, wide([0, 0, 110 * 65_535 / 219, 65_535]));
        let layout = Layout::of(&DriverFormat { quantization: 2, ..driver(b"RGBP", (2, 2), &[(4, 8)]) }).unwrap();
        layout.copy(&[&wide([2 << 11 | 4 << 5 | 2, 29 << 11 | 59 << 5 | 29, 0, 0xFFFF])], &mut frame).unwrap();
        assert_eq!(frame, wide([0, 0xFFFF, 0, 0xFFFF]));
        for (quantization, expected) in [(2, [0, 0, 128, 255]), (1, [3, 16, 126, 235]), (0, [3, 16, 126, 235])] {
            let layout = Layout::of(&limited(b"GREY", quantization)).unwrap();
            layout.copy(&[&[3, 16, 126, 235]], &mut frame).unwrap();
            assert_eq!(frame, expected);
        }
        for level in 0..=255u8 {
            let truth = ((f64::from(level) - 16.0) * 255.0 / 219.0).round().clamp(0.0, 255.0);
            assert_eq!(f64::from(FULL_RANGE[usize::from(level)]), truth, "{level}");
        }
    }

    #[test]
    fn a_jpeg_picture_must_be_one_and_of_the_size_that_was_agreed_on() {
        let layout = Layout::of(&driver(b"MJPG", (6, 5), &[(0, 100)])).unwrap();
        let picture = |width: u32, height: u32| {
            let mut bytes = Vec::new();
            let encoder = image::codecs::jpeg::JpegEncoder::new(&mut bytes);
            let pixels = vec![90; (3 * width * height) as usize];
            image::ImageEncoder::write_image(encoder, &pixels, width, height, image::ExtendedColorType::Rgb8).unwrap();
            bytes
        };
        let good = picture(6, 5);
        assert!(layout.agrees(&good) && !layout.agrees(&picture(5, 6)));
        let header = good.windows(2).position(|bytes| bytes == [0xFF, 0xC0]).unwrap();
        assert!((0..header + 9).all(|len| !layout.agrees(&good[..len])), "cut off before its size");
        assert!(!layout.agrees(&[0; 64]) && !layout.agrees(&[]));
        assert!(Layout::of(&driver(b"GREY", (6, 5), &[(6, 30)])).unwrap().agrees(&[]), "other formats have no header");
    }

    #[test]
    fn nonsense_is_refused() {
        for (driver, word) in [
            (driver(b"H264", (640, 480), &[(0, 0)]), "H264"),
            (driver(b"YUYV", (640, 480), &[(640, 0)]), "1280"),
            (driver(b"YUYV", (0, 480), &[(0, 0)]), "0x480"),
            (driver(b"NM12", (64, 48), &[(64, 0), (64, 0), (64, 0)]), "3 memory planes"),
            (DriverFormat { field: 7, ..driver(b"GREY", (64, 48), &[(64, 0)]) }, "ALTERNATE"),
        ] {
            assert!(Layout::of(&driver).unwrap_err().contains(word), "{word}");
        }
    }

    #[test]
    fn colour_follows_the_driver_and_the_headers_defaults() {
        let colour = |colorspace, ycbcr_encoding, quantization| {
            let format = DriverFormat { colorspace, ycbcr_encoding, quantization, ..driver(b"YUYV", (2, 2), &[(0, 0)]) };
            Layout::of(&format).unwrap().colour
        };
        let (bt601, bt709) = (Colour::default(), Colour { matrix: Matrix::Bt709, full_range: false });
        assert_eq!(colour(8, 0, 0), bt601); // sRGB, as webcams say
        assert_eq!(colour(3, 0, 0), bt709); // Rec. 709
        assert_eq!(colour(3, 1, 0), bt601); // an explicit encoding wins
        assert_eq!(colour(7, 0, 0), Colour { full_range: true, ..bt601 }); // JPEG
        assert_eq!(colour(1, 2, 1), Colour { full_range: true, ..bt709 });
        assert_eq!(colour(7, 0, 2), bt601); // an explicit range wins
    }
}
