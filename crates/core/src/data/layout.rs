//! How the rows of a raw frame lie in a stream.

use std::str::FromStr;

use super::PixelFormat;

/// How far the rows of a pipe's frames are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stride {
    /// Nothing between them, as ffmpeg writes frames.
    #[default]
    Tight,
    /// As GStreamer's video library lays frames out by itself (`gst_video_info_set_format`): rows rounded up to 4 bytes, chroma rows of
    /// I420 to 4 of their own, heights of 4:2:0 to even ones.
    GStreamer,
    /// As the camera processor of a Raspberry Pi 5 does, of planar 4:2:0: chroma rows rounded up to 64 bytes, luma rows twice that.
    Pi5,
    /// Bytes from one row of the first plane to the next; chroma planes of planar 4:2:0 have half. What drivers call `bytesperline`.
    Bytes(u32),
}

impl FromStr for Stride {
    type Err = String;

    fn from_str(text: &str) -> Result<Stride, String> {
        match text.to_ascii_lowercase().as_str() {
            "tight" => Ok(Stride::Tight),
            "gstreamer" => Ok(Stride::GStreamer),
            "pi5" => Ok(Stride::Pi5),
            number => match number.parse() {
                Ok(bytes) if bytes > 0 && bytes <= 1 << 20 => Ok(Stride::Bytes(bytes)),
                _ => Err(format!("unknown stride '{text}': tight, gstreamer, pi5 or bytes from row to row")),
            },
        }
    }
}

impl std::fmt::Display for Stride {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stride::Tight => f.write_str("tight"),
            Stride::GStreamer => f.write_str("gstreamer"),
            Stride::Pi5 => f.write_str("pi5"),
            Stride::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// What becomes of a run whose input ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputEnd {
    /// A camera does not end: standard input and a bag fail the run, a FIFO waits for its next writer, a command is started again.
    #[default]
    Fail,
    /// The run ends, and well.
    Stop,
}

impl FromStr for InputEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<InputEnd, String> {
        match text {
            "fail" => Ok(InputEnd::Fail),
            "stop" => Ok(InputEnd::Stop),
            _ => Err(format!("'{text}' is neither fail nor stop")),
        }
    }
}

/// A plane of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane {
    /// Bytes of a row that are pixels.
    pub len: usize,
    /// Rows that are pixels.
    pub rows: usize,
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Rows in the stream, padding included.
    pub stored: usize,
}

/// The planes of a raw frame, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawLayout {
    planes: Vec<Plane>,
}

impl RawLayout {
    /// # Errors
    /// When there is no such layout of this format, or its frames fit no memory.
    pub fn new(format: PixelFormat, (width, height): (u32, u32), stride: Stride) -> Result<RawLayout, &'static str> {
        format
            .frame_len(width, height)
            .filter(|len| *len <= isize::MAX as usize / 4)
            .ok_or("frames of this format and size fit no memory")?;
        let (w, h) = (width as usize, height as usize);
        let (half, half_rows) = (w.div_ceil(2), h.div_ceil(2));
        use PixelFormat::*;
        // (bytes, rows) of each plane, and its stride as a fraction of the first one's
        let shapes: &[(usize, usize, (usize, usize))] = match format {
            Rgb24 | Bgr24 => &[(3 * w, h, (1, 1))],
            Rgbx | Xrgb | Bgrx | Xbgr => &[(4 * w, h, (1, 1))],
            Rgb565 | Grey16 => &[(2 * w, h, (1, 1))],
            Grey => &[(w, h, (1, 1))],
            Yuyv | Uyvy | Yvyu | Vyuy => &[(4 * half, h, (1, 1))],
            Nv12 | Nv21 => &[(w, h, (1, 1)), (2 * half, half_rows, (1, 1))],
            Nv16 | Nv61 => &[(w, h, (1, 1)), (2 * half, h, (1, 1))],
            Nv24 | Nv42 => &[(w, h, (1, 1)), (2 * w, h, (2, 1))],
            Yuv420 => &[(w, h, (1, 1)), (half, half_rows, (1, 2)), (half, half_rows, (1, 2))],
            Mjpg => return Err("compressed frames have no rows"),
        };
        let half_height = matches!(format, Nv12 | Nv21 | Yuv420);
        let mut planes = Vec::with_capacity(3);
        for (index, &(len, rows, (times, parts))) in shapes.iter().enumerate() {
            let (stride, stored) = match stride {
                Stride::Tight => (len, rows),
                Stride::GStreamer => {
                    // interleaved chroma of 4:2:0 and 4:2:2 has the luma's stride
                    let row = if matches!(format, Nv12 | Nv21 | Nv16 | Nv61) { shapes[0].0 } else { len };
                    (row.next_multiple_of(4), if half_height && index == 0 { 2 * half_rows } else { rows })
                }
                Stride::Pi5 if format == Yuv420 => (2 * times / parts * half.next_multiple_of(64), rows),
                Stride::Pi5 => return Err("pi5 is a layout of yuv420"),
                Stride::Bytes(bytes) if !(bytes as usize).is_multiple_of(parts) => {
                    return Err("rows of yuv420 are an even number of bytes apart");
                }
                Stride::Bytes(bytes) => (bytes as usize * times / parts, rows),
            };
            if stride < len {
                return Err("rows of source.size in source.format take more bytes");
            }
            planes.push(Plane { len, rows, stride, stored });
        }
        Ok(RawLayout { planes })
    }

    /// In their order.
    pub fn planes(&self) -> &[Plane] {
        &self.planes
    }

    /// Bytes of a frame in the stream.
    pub fn len(&self) -> usize {
        self.planes.iter().map(|plane| plane.stride * plane.stored).sum()
    }

    /// Whether a frame has no bytes, which no size gives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing lies between rows.
    pub fn is_tight(&self) -> bool {
        self.planes.iter().all(|plane| (plane.stride, plane.stored) == (plane.len, plane.rows))
    }

    /// The frame in `raw` without its padding. Panics when `raw` is not a frame long: a bug of the caller.
    pub fn tighten(&self, raw: &[u8], frame: &mut Vec<u8>) {
        assert_eq!(raw.len(), self.len());
        frame.clear();
        let mut rest = raw;
        for plane in &self.planes {
            let (rows, others) = rest.split_at(plane.stride * plane.stored);
            rows.chunks_exact(plane.stride).take(plane.rows).for_each(|row| frame.extend_from_slice(&row[..plane.len]));
            rest = others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strides(format: PixelFormat, size: (u32, u32), stride: Stride) -> Vec<(usize, usize)> {
        RawLayout::new(format, size, stride).unwrap().planes().iter().map(|plane| (plane.stride, plane.stored)).collect()
    }

    #[test]
    fn layouts_are_those_that_producers_document() {
        use PixelFormat::*;
        assert_eq!(strides(Yuv420, (426, 240), Stride::GStreamer), [(428, 240), (216, 120), (216, 120)]);
        assert_eq!(strides(Yuv420, (5, 7), Stride::GStreamer), [(8, 8), (4, 4), (4, 4)]);
        assert_eq!(strides(Nv12, (426, 241), Stride::GStreamer), [(428, 242), (428, 121)]);
        assert_eq!(strides(Rgb24, (5, 7), Stride::GStreamer), [(16, 7)]);
        assert_eq!(strides(Grey, (5, 7), Stride::GStreamer), [(8, 7)]);
        assert_eq!(strides(Yuyv, (5, 7), Stride::GStreamer), [(12, 7)]);
        assert_eq!(strides(Grey16, (5, 7), Stride::GStreamer), [(12, 7)]);
        assert_eq!(strides(Bgrx, (5, 7), Stride::GStreamer), [(20, 7)]);
        assert_eq!(strides(Rgb565, (5, 7), Stride::GStreamer), [(12, 7)]);
        assert_eq!(strides(Nv16, (5, 7), Stride::GStreamer), [(8, 7), (8, 7)]);
        assert_eq!(strides(Nv16, (26, 17), Stride::GStreamer), [(28, 17), (28, 17)]);
        assert_eq!(strides(Nv24, (26, 17), Stride::GStreamer), [(28, 17), (52, 17)]);
        assert_eq!(strides(Nv24, (26, 17), Stride::Bytes(64)), [(64, 17), (128, 17)]);
        assert_eq!(strides(Yuv420, (800, 600), Stride::Pi5), [(896, 600), (448, 300), (448, 300)]);
        assert_eq!(strides(Yuv420, (640, 480), Stride::Pi5), [(640, 480), (320, 240), (320, 240)]);
        assert_eq!(strides(Nv12, (426, 240), Stride::Bytes(512)), [(512, 240), (512, 120)]);
        for (format, _) in PixelFormat::NAMES.into_iter().filter(|(format, _)| *format != Mjpg) {
            let tight = RawLayout::new(format, (5, 7), Stride::Tight).unwrap();
            assert!(tight.is_tight() && Some(tight.len()) == format.frame_len(5, 7), "{format:?}");
        }
    }

    #[test]
    fn padding_is_left_out() {
        let layout = RawLayout::new(PixelFormat::Yuv420, (3, 3), Stride::GStreamer).unwrap();
        let luma = [1, 2, 3, 0xEE, 4, 5, 6, 0xEE, 7, 8, 9, 0xEE, 0xEE, 0xEE, 0xEE, 0xEE];
        let (u, v) = ([11, 12, 0xEE, 0xEE, 13, 14, 0xEE, 0xEE], [21, 22, 0xEE, 0xEE, 23, 24, 0xEE, 0xEE]);
        let mut frame = vec![0; 99];
        layout.tighten(&[&luma[..], &u, &v].concat(), &mut frame);
        assert_eq!(frame, [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 21, 22, 23, 24]);
    }

    #[test]
    fn nonsense_is_refused() {
        for (format, stride) in [
            (PixelFormat::Rgb24, Stride::Bytes(100)),
            (PixelFormat::Rgb24, Stride::Pi5),
            (PixelFormat::Yuv420, Stride::Bytes(65)),
            (PixelFormat::Mjpg, Stride::Tight),
        ] {
            assert!(RawLayout::new(format, (64, 48), stride).is_err(), "{format:?} {stride}");
        }
        assert!("0".parse::<Stride>().is_err() && "padded".parse::<Stride>().unwrap_err().contains("gstreamer"));
        assert_eq!(
            ["428", "GStreamer", "pi5"].map(|text| text.parse::<Stride>().unwrap()),
            [Stride::Bytes(428), Stride::GStreamer, Stride::Pi5]
        );
    }
}
