//! Frames as RGB.

use crate::data::{Colour, Frame, Matrix, PixelFormat};
use crate::kernels::arch::Isa;
use crate::kernels::colour::{YuvToRgb, interleave, levels, split_pairs, spread_chroma, swap_red_blue};

/// Gives frames as interleaved RGB; buffers are reused from frame to frame.
#[derive(Debug)]
pub struct RgbConverter {
    pub(super) isa: Isa,
    rgb: Vec<u8>,
    /// What chroma adds to a row of red, green and blue.
    offsets: Vec<i32>,
    /// A row of red, one of green, one of blue.
    planes: Vec<u8>,
    /// A row of luma, then one of U and V in their order, then U, then V: what packed formats are taken apart into.
    samples: Vec<u8>,
}

impl Default for RgbConverter {
    fn default() -> Self {
        RgbConverter::new()
    }
}

/// A row's samples: one luma a pixel, one U and V for two.
struct Samples<'a> {
    luma: &'a [u8],
    u: &'a [u8],
    v: &'a [u8],
}

impl RgbConverter {
    /// Runs on the best instruction set of this CPU.
    pub fn new() -> RgbConverter {
        RgbConverter { isa: Isa::detect(), rgb: Vec::new(), offsets: Vec::new(), planes: Vec::new(), samples: Vec::new() }
    }

    /// The frame as interleaved RGB, converted when it is something else. Chroma is that of the block a pixel lies in; every
    /// result is within one level of the formula. A compressed frame is a bug of the caller.
    pub fn rgb<'a>(&'a mut self, frame: &'a Frame) -> &'a [u8] {
        if frame.format == PixelFormat::Rgb24 {
            return &frame.data;
        }
        let (isa, width, height) = (self.isa, frame.width as usize, frame.height as usize);
        self.rgb.resize(width * height * 3, 0);
        match frame.format {
            PixelFormat::Bgr24 => swap_red_blue(isa, &frame.data, &mut self.rgb),
            PixelFormat::Grey => interleave(isa, &frame.data, &frame.data, &frame.data, &mut self.rgb),
            PixelFormat::Mjpg => unreachable!("the developer decodes JPEG frames first"),
            _ => self.yuv(frame, width),
        }
        &self.rgb
    }

    /// Every YUV format is a matter of where a row's samples lie.
    fn yuv(&mut self, frame: &Frame, width: usize) {
        let RgbConverter { isa, rgb, offsets, planes, samples } = self;
        let (isa, space) = (*isa, space(frame.colour));
        let chroma_width = width.div_ceil(2);
        let wide = 2 * chroma_width;
        offsets.resize(wide * 3, 0);
        planes.resize(width * 3, 0);
        samples.resize(wide * 3, 0);
        let half_height = matches!(frame.format, PixelFormat::Yuv420 | PixelFormat::Nv12 | PixelFormat::Nv21);
        for (y, row) in rgb.chunks_exact_mut(width * 3).enumerate() {
            let Samples { luma, u, v } = row_samples(isa, frame, y, samples);
            if !half_height || y % 2 == 0 {
                spread_chroma(isa, &space, u, v, offsets);
            }
            for (offsets, plane) in offsets.chunks_exact(wide).zip(planes.chunks_exact_mut(width)) {
                levels(isa, &space, luma, offsets, plane);
            }
            let (red, others) = planes.split_at(width);
            let (green, blue) = others.split_at(width);
            interleave(isa, red, green, blue, row);
        }
    }
}

/// Row `y` of a YUV frame, taken apart in `scratch` where its samples alternate.
fn row_samples<'a>(isa: Isa, frame: &'a Frame, y: usize, scratch: &'a mut [u8]) -> Samples<'a> {
    let (width, height, data) = (frame.width as usize, frame.height as usize, frame.data.as_slice());
    let half = width.div_ceil(2);
    let (first, chroma) = scratch.split_at_mut(2 * half);
    let (pairs, apart) = chroma.split_at_mut(2 * half);
    let luma = |data: &'a [u8]| &data[y * width..][..width];
    match frame.format {
        PixelFormat::Yuv420 => {
            let planes = &data[width * height..];
            let (u, v) = planes.split_at(half * height.div_ceil(2));
            let at = y / 2 * half;
            Samples { luma: luma(data), u: &u[at..at + half], v: &v[at..at + half] }
        }
        PixelFormat::Nv12 | PixelFormat::Nv21 => {
            let row = &data[width * height + y / 2 * 2 * half..][..2 * half];
            let (a, b) = apart.split_at_mut(half);
            split_pairs(isa, row, a, b);
            let (u, v): (&[u8], &[u8]) = if frame.format == PixelFormat::Nv12 { (a, b) } else { (b, a) };
            Samples { luma: luma(data), u, v }
        }
        _ => {
            let row = &data[y * 4 * half..][..4 * half];
            match frame.format {
                PixelFormat::Uyvy => split_pairs(isa, row, pairs, first),
                _ => split_pairs(isa, row, first, pairs),
            }
            let (u, v) = apart.split_at_mut(half);
            split_pairs(isa, pairs, u, v);
            Samples { luma: &first[..width], u, v }
        }
    }
}

fn space(colour: Colour) -> YuvToRgb {
    match colour.matrix {
        Matrix::Bt601 => YuvToRgb::new(0.299, 0.114, colour.full_range),
        Matrix::Bt709 => YuvToRgb::new(0.2126, 0.0722, colour.full_range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YUV: [PixelFormat; 5] = [PixelFormat::Yuyv, PixelFormat::Uyvy, PixelFormat::Nv12, PixelFormat::Nv21, PixelFormat::Yuv420];

    /// What each standard says of one pixel, in floating point.
    fn truth([y, u, v]: [u8; 3], colour: Colour) -> [f64; 3] {
        let (kr, kb) = if colour.matrix == Matrix::Bt601 { (0.299, 0.114) } else { (0.2126, 0.0722) };
        let (luma, chroma, black) = if colour.full_range { (255.0, 255.0, 0.0) } else { (219.0, 224.0, 16.0) };
        let (y, u, v) = ((f64::from(y) - black) / luma, (f64::from(u) - 128.0) / chroma, (f64::from(v) - 128.0) / chroma);
        let (r, b) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
        let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
        [r, g, b].map(|value| (value * 255.0).clamp(0.0, 255.0))
    }

    /// A frame that has `yuv` at every pixel and block.
    fn frame(format: PixelFormat, (width, height): (usize, usize), yuv: impl Fn(usize, usize) -> [u8; 3]) -> Frame {
        let (half, half_rows) = (width.div_ceil(2), height.div_ceil(2));
        let luma: Vec<u8> = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| yuv(x, y)[0]).collect();
        let block = |x: usize, y: usize| [yuv(2 * x, y)[1], yuv(2 * x, y)[2]];
        let blocks: Vec<[u8; 2]> = (0..half_rows).flat_map(|y| (0..half).map(move |x| (x, y))).map(|(x, y)| block(x, 2 * y)).collect();
        let data = match format {
            PixelFormat::Nv12 => [luma, blocks.concat()].concat(),
            PixelFormat::Nv21 => [luma, blocks.iter().flat_map(|[u, v]| [*v, *u]).collect()].concat(),
            PixelFormat::Yuv420 => [luma, blocks.iter().map(|b| b[0]).collect(), blocks.iter().map(|b| b[1]).collect::<Vec<u8>>()].concat(),
            _ => (0..height)
                .flat_map(|y| (0..half).map(move |x| (x, y)))
                .flat_map(|(x, y)| {
                    let (left, right, [u, v]) = (yuv(2 * x, y)[0], yuv((2 * x + 1).min(width - 1), y)[0], block(x, y));
                    if format == PixelFormat::Yuyv { [left, u, right, v] } else { [u, left, v, right] }
                })
                .collect(),
        };
        assert_eq!(Some(data.len()), format.frame_len(width as u32, height as u32), "{format:?}");
        let rgb = Frame::rgb(width as u32, height as u32, vec![0; 3 * width * height]);
        Frame { format, data, ..rgb }
    }

    #[test]
    fn every_format_equals_the_formula_within_a_level() {
        let size = (5, 3); // odd: the last column and row have chroma of their own
        let yuv =
            |x: usize, y: usize| [(x * 53 + y * 91) as u8, (x / 2 * 117 + y / 2 * 61 + 3) as u8, (255 - x / 2 * 87 - y / 2 * 39) as u8];
        for (matrix, full_range) in [(Matrix::Bt601, false), (Matrix::Bt601, true), (Matrix::Bt709, false), (Matrix::Bt709, true)] {
            let colour = Colour { matrix, full_range };
            for format in YUV {
                let frame = Frame { colour, ..frame(format, size, yuv) };
                let rgb = RgbConverter::new().rgb(&frame).to_vec();
                for (at, pixel) in rgb.chunks(3).enumerate() {
                    let expected = truth(yuv(at % size.0, at / size.0), colour);
                    for (ours, truth) in pixel.iter().zip(expected) {
                        assert!((f64::from(*ours) - truth).abs() <= 1.0, "{format:?} {colour:?} pixel {at}: {pixel:?}, {expected:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn primaries_and_extremes_equal_the_formula_within_a_level() {
        for yuv in [[16, 128, 128], [235, 128, 128], [81, 90, 240], [145, 54, 34], [41, 240, 110], [0, 0, 255], [200, 3, 77]] {
            let rgb = RgbConverter::new().rgb(&frame(PixelFormat::Yuv420, (1, 1), |_, _| yuv)).to_vec();
            for (ours, truth) in rgb.iter().zip(truth(yuv, Colour::default())) {
                assert!((f64::from(*ours) - truth).abs() <= 1.0, "{yuv:?}: {rgb:?}");
            }
        }
    }

    #[test]
    fn odd_sizes_use_the_right_chroma() {
        // 3x3: chroma is 2x2; the last column and row have their own sample
        let mut data = vec![128u8; 9];
        data.extend([128, 128, 128, 255]); // U: only the lower right block is blue
        data.extend([128; 4]);
        let frame = Frame { format: PixelFormat::Yuv420, data, ..Frame::rgb(3, 3, vec![0; 27]) };
        let rgb = RgbConverter::new().rgb(&frame).to_vec();
        let blue: Vec<u8> = rgb.chunks(3).map(|p| p[2]).collect();
        assert!(blue[8] > 250 && blue[..8].iter().all(|&b| b == blue[0]), "{blue:?}");
    }

    #[test]
    fn grey_and_bgr_keep_their_levels() {
        let rgb = Frame::rgb(2, 1, vec![0; 6]);
        let grey = Frame { format: PixelFormat::Grey, data: vec![0, 255], ..rgb.clone() };
        assert_eq!(RgbConverter::new().rgb(&grey), [0, 0, 0, 255, 255, 255]);
        let bgr = Frame { format: PixelFormat::Bgr24, data: vec![1, 2, 3, 4, 5, 6], ..rgb };
        assert_eq!(RgbConverter::new().rgb(&bgr), [3, 2, 1, 6, 5, 4]);
    }

    #[test]
    fn a_converter_takes_one_format_after_the_other() {
        let yuv = |x: usize, y: usize| [(x * 40 + y * 9) as u8, (x / 2 * 90) as u8, (y / 2 * 70) as u8];
        let mut converter = RgbConverter::new();
        for size in [(6, 4), (2, 2), (7, 5)] {
            for format in YUV {
                let frame = frame(format, size, yuv);
                assert_eq!(converter.rgb(&frame), RgbConverter::new().rgb(&frame), "{format:?} {size:?}");
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_picture() {
        let (width, height) = (37u32, 11);
        for format in YUV.into_iter().chain([PixelFormat::Grey, PixelFormat::Bgr24]) {
            let data = (0..format.frame_len(width, height).unwrap()).map(|at| (at * 89 % 256) as u8).collect();
            let frame = Frame { format, data, ..Frame::rgb(width, height, vec![0; 3 * 37 * 11]) };
            let on = |isa: Isa| RgbConverter { isa, ..RgbConverter::new() }.rgb(&frame).to_vec();
            assert!(Isa::available().into_iter().all(|isa| on(isa) == on(Isa::SCALAR)), "{format:?}");
        }
    }
}
