//! A picture as a source delivers it.

/// How the bytes of a [`Frame`] are laid out (names follow the V4L2 pixel format documentation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    /// Interleaved 8-bit R, G, B: 3 bytes a pixel, no row padding.
    Rgb24,
    /// Planar 4:2:0: a full-resolution Y plane, then U, then V at half resolution (rounded up).
    /// BT.601, limited range, as `rpicam-vid` and `ffmpeg -pix_fmt yuv420p` write it.
    Yuv420,
}

impl PixelFormat {
    /// Bytes that one `width` x `height` frame takes, or `None` when it does not fit a `usize`.
    pub fn frame_len(self, width: u32, height: u32) -> Option<usize> {
        let (w, h) = (width as usize, height as usize);
        let luma = w.checked_mul(h)?;
        match self {
            PixelFormat::Rgb24 => luma.checked_mul(3),
            PixelFormat::Yuv420 => {
                let chroma = w.div_ceil(2).checked_mul(h.div_ceil(2))?;
                luma.checked_add(chroma.checked_mul(2)?)
            }
        }
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

/// One picture: `data` holds exactly `format.frame_len(width, height)` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub width: u32,
    pub height: u32,
    pub format: PixelFormat,
    pub data: Vec<u8>,
    /// Counts up by one per frame that the source produced, whether or not anybody saw it.
    pub sequence: u64,
    /// When the picture was taken: CLOCK_MONOTONIC, nanoseconds.
    pub captured_ns: u64,
    /// Present when the source drew the picture itself.
    pub truth: Option<Box<GroundTruth>>,
}

impl Frame {
    /// An RGB frame with sequence and time zero. Panics when `data` is not `3 * width * height` bytes: a bug of the caller.
    pub fn rgb(width: u32, height: u32, data: Vec<u8>) -> Frame {
        assert_eq!(Some(data.len()), PixelFormat::Rgb24.frame_len(width, height), "RGB frame of {width}x{height}");
        Frame { width, height, format: PixelFormat::Rgb24, data, sequence: 0, captured_ns: 0, truth: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sizes_round_chroma_up() {
        assert_eq!(PixelFormat::Yuv420.frame_len(3, 3), Some(9 + 2 * 4));
        assert_eq!(PixelFormat::Rgb24.frame_len(3, 3), Some(27));
        assert_eq!(PixelFormat::Yuv420.frame_len(640, 480), Some(640 * 480 * 3 / 2));
    }
}
