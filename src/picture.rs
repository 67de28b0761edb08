//! Camera frames as the ring's readers know them: our pixel formats by their V4L2 codes, and back.
//!
//! Refuses: to convert a pixel.

use eomt_edge_client::layout::{FRAME_BT709, FRAME_FULL_RANGE};
use eomt_edge_client::{CameraFrame, FrameFormat};
use eomt_edge_core::data::{Colour, Frame, Matrix, PixelFormat};

/// Every format and its name in the ring.
const FORMATS: [(PixelFormat, FrameFormat); 21] = [
    (PixelFormat::Rgb24, FrameFormat::Rgb24),
    (PixelFormat::Bgr24, FrameFormat::Bgr24),
    (PixelFormat::Rgbx, FrameFormat::Rgbx),
    (PixelFormat::Xrgb, FrameFormat::Xrgb),
    (PixelFormat::Bgrx, FrameFormat::Bgrx),
    (PixelFormat::Xbgr, FrameFormat::Xbgr),
    (PixelFormat::Rgb565, FrameFormat::Rgb565),
    (PixelFormat::Grey, FrameFormat::Grey),
    (PixelFormat::Grey16, FrameFormat::Grey16),
    (PixelFormat::Yuyv, FrameFormat::Yuyv),
    (PixelFormat::Uyvy, FrameFormat::Uyvy),
    (PixelFormat::Yvyu, FrameFormat::Yvyu),
    (PixelFormat::Vyuy, FrameFormat::Vyuy),
    (PixelFormat::Nv12, FrameFormat::Nv12),
    (PixelFormat::Nv21, FrameFormat::Nv21),
    (PixelFormat::Nv16, FrameFormat::Nv16),
    (PixelFormat::Nv61, FrameFormat::Nv61),
    (PixelFormat::Nv24, FrameFormat::Nv24),
    (PixelFormat::Nv42, FrameFormat::Nv42),
    (PixelFormat::Yuv420, FrameFormat::Yuv420),
    (PixelFormat::Mjpg, FrameFormat::Mjpeg),
];

/// A frame as its source gave it, if it still is: what was cropped or turned is RGB by now. Format, `SlotInfo::frame_colour`, bytes.
pub fn as_given(frame: &Frame) -> (FrameFormat, u32, &[u8]) {
    if !frame.jpeg.is_empty() {
        return (FrameFormat::Mjpeg, 0, &frame.jpeg);
    }
    let format = FORMATS.iter().find(|(ours, _)| *ours == frame.format).map_or(FrameFormat::Rgb24, |(_, ring)| *ring);
    let bt709 = if frame.colour.matrix == Matrix::Bt709 { FRAME_BT709 } else { 0 };
    let full_range = if frame.colour.full_range { FRAME_FULL_RANGE } else { 0 };
    (format, if frame.format.is_yuv() { bt709 | full_range } else { 0 }, &frame.data)
}

/// A reader's camera frame as one of ours; `None` when its format is none of ours.
pub fn as_frame(picture: &CameraFrame, (width, height): (u32, u32)) -> Option<Frame> {
    let (format, _) = FORMATS.iter().find(|(_, ring)| *ring == picture.format)?;
    let matrix = if picture.bt709 { Matrix::Bt709 } else { Matrix::Bt601 };
    let colour = Colour { matrix, full_range: picture.full_range };
    Some(Frame { colour, ..Frame::new(width, height, *format, picture.bytes.to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_and_daemon_agree_on_the_size_of_every_format() {
        for (ours, _) in PixelFormat::NAMES {
            assert_eq!(FORMATS.iter().filter(|(format, _)| *format == ours).count(), 1, "{ours:?}");
        }
        for (ours, ring) in FORMATS {
            for (width, height) in [(1, 1), (3, 3), (7, 2), (640, 480)] {
                assert_eq!(ours.frame_len(width, height), ring.frame_bytes(width, height), "{ours:?} {width}x{height}");
            }
        }
        assert_eq!(FrameFormat::all().count(), FORMATS.len());
    }
}
