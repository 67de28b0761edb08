//! Frames of any pixel format to RGB.

use crate::data::{Colour, Frame, Matrix, PixelFormat};
use crate::kernels::arch::Isa;
use crate::kernels::colour::{
    YuvToRgb, bgrx_to_rgb, full_chroma, interleave, levels, narrow_levels, rgb565_to_rgb, rgbx_to_rgb, split_pairs, spread_chroma,
    swap_red_blue, xbgr_to_rgb, xrgb_to_rgb,
};

/// Converts frames to interleaved RGB and reuses its buffers from frame to frame.
#[derive(Debug)]
pub struct RgbConverter {
    pub(super) isa: Isa,
    rgb: Vec<u8>,
    /// What chroma adds to a row of red, green and blue.
    offsets: Vec<i32>,
    /// A row of red, one of green, one of blue.
    planes: Vec<u8>,
    /// The parts of a row of a packed format: luma, then U and V in their order, then U, then V.
    samples: Vec<u8>,
}

impl Default for RgbConverter {
    fn default() -> Self {
        RgbConverter::new()
    }
}

/// A row's samples: one luma a pixel, one U and V for two or, at full resolution, for one.
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

    /// The frame as interleaved RGB, converted if necessary. A pixel takes the chroma of its block; every result is within one level of
    /// the formula. Panics on a compressed frame: a bug of the caller.
    pub fn rgb<'a>(&'a mut self, frame: &'a Frame) -> &'a [u8] {
        if frame.format == PixelFormat::Rgb24 {
            return &frame.data;
        }
        let (isa, width, height) = (self.isa, frame.width as usize, frame.height as usize);
        self.rgb.resize(width * height * 3, 0);
        match frame.format {
            PixelFormat::Bgr24 => swap_red_blue(isa, &frame.data, &mut self.rgb),
            PixelFormat::Rgbx => rgbx_to_rgb(isa, &frame.data, &mut self.rgb),
            PixelFormat::Xrgb => xrgb_to_rgb(isa, &frame.data, &mut self.rgb),
            PixelFormat::Bgrx => bgrx_to_rgb(isa, &frame.data, &mut self.rgb),
            PixelFormat::Xbgr => xbgr_to_rgb(isa, &frame.data, &mut self.rgb),
            PixelFormat::Rgb565 => rgb565_to_rgb(isa, &frame.data, &mut self.rgb),
            PixelFormat::Grey => interleave(isa, &frame.data, &frame.data, &frame.data, &mut self.rgb),
            PixelFormat::Grey16 => {
                self.samples.resize(width, 0);
                for (row, rgb) in frame.data.chunks_exact(2 * width).zip(self.rgb.chunks_exact_mut(3 * width)) {
                    narrow_levels(isa, row, &mut self.samples);
                    interleave(isa, &self.samples, &self.samples, &self.samples, rgb);
                }
            }
            PixelFormat::Mjpg => unreachable!("the decoder decodes JPEG frames first"),
            _ => self.yuv(frame, width),
        }
        &self.rgb
    }

    /// YUV formats differ only in where a row's samples lie.
    fn yuv(&mut self, frame: &Frame, width: usize) {
        let RgbConverter { isa, rgb, offsets, planes, samples } = self;
        let (isa, space) = (*isa, space(frame.colour));
        let full_width = matches!(frame.format, PixelFormat::Nv24 | PixelFormat::Nv42);
        let wide = if full_width { width } else { 2 * width.div_ceil(2) };
        offsets.resize(wide * 3, 0);
        planes.resize(width * 3, 0);
        samples.resize(3 * wide, 0);
        let half_height = matches!(frame.format, PixelFormat::Yuv420 | PixelFormat::Nv12 | PixelFormat::Nv21);
        for (y, row) in rgb.chunks_exact_mut(width * 3).enumerate() {
            let Samples { luma, u, v } = row_samples(isa, frame, y, samples);
            match full_width {
                true => full_chroma(isa, &space, u, v, offsets),
                false if !half_height || y % 2 == 0 => spread_chroma(isa, &space, u, v, offsets),
                false => {}
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

/// Row `y` of a YUV frame, split up in `scratch` where its samples alternate.
fn row_samples<'a>(isa: Isa, frame: &'a Frame, y: usize, scratch: &'a mut [u8]) -> Samples<'a> {
    let (width, height, data) = (frame.width as usize, frame.height as usize, frame.data.as_slice());
    let half = width.div_ceil(2);
    let luma = |data: &'a [u8]| &data[y * width..][..width];
    // samples of U and V in a row of chroma, and which row that is
    let (chroma, line) = match frame.format {
        PixelFormat::Yuv420 => {
            let planes = &data[width * height..];
            let (u, v) = planes.split_at(half * height.div_ceil(2));
            let at = y / 2 * half;
            return Samples { luma: luma(data), u: &u[at..at + half], v: &v[at..at + half] };
        }
        PixelFormat::Nv12 | PixelFormat::Nv21 => (half, y / 2),
        PixelFormat::Nv16 | PixelFormat::Nv61 => (half, y),
        PixelFormat::Nv24 | PixelFormat::Nv42 => (width, y),
        _ => return packed_samples(isa, frame, y, scratch),
    };
    let row = &data[width * height + line * 2 * chroma..][..2 * chroma];
    let (a, b) = scratch[..2 * chroma].split_at_mut(chroma);
    split_pairs(isa, row, a, b);
    let v_first = matches!(frame.format, PixelFormat::Nv21 | PixelFormat::Nv61 | PixelFormat::Nv42);
    let (u, v): (&[u8], &[u8]) = if v_first { (b, a) } else { (a, b) };
    Samples { luma: luma(data), u, v }
}

/// Row `y` of a packed 4:2:2 frame, split up in `scratch`.
fn packed_samples<'a>(isa: Isa, frame: &'a Frame, y: usize, scratch: &'a mut [u8]) -> Samples<'a> {
    let (width, half) = (frame.width as usize, frame.width.div_ceil(2) as usize);
    let row = &frame.data[y * 4 * half..][..4 * half];
    let (luma, chroma) = scratch.split_at_mut(2 * half);
    let (pairs, apart) = chroma.split_at_mut(2 * half);
    match frame.format {
        PixelFormat::Uyvy | PixelFormat::Vyuy => split_pairs(isa, row, pairs, luma),
        _ => split_pairs(isa, row, luma, pairs),
    }
    let (a, b) = apart.split_at_mut(half);
    split_pairs(isa, pairs, a, b);
    let v_first = matches!(frame.format, PixelFormat::Yvyu | PixelFormat::Vyuy);
    let (u, v): (&[u8], &[u8]) = if v_first { (b, a) } else { (a, b) };
    Samples { luma: &luma[..width], u, v }
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
    use crate::kernels::suite;

    /// Every format of luma and chroma.
    fn yuv() -> Vec<PixelFormat> {
        PixelFormat::NAMES.into_iter().map(|(format, _)| format).filter(|format| format.is_yuv()).collect()
    }

    /// The formula of each standard for one pixel, in floating point.
    fn reference([y, u, v]: [u8; 3], colour: Colour) -> [f64; 3] {
        let (kr, kb) = if colour.matrix == Matrix::Bt601 { (0.299, 0.114) } else { (0.2126, 0.0722) };
        let (luma, chroma, black) = if colour.full_range { (255.0, 255.0, 0.0) } else { (219.0, 224.0, 16.0) };
        let (y, u, v) = ((f64::from(y) - black) / luma, (f64::from(u) - 128.0) / chroma, (f64::from(v) - 128.0) / chroma);
        let (r, b) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
        let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
        [r, g, b].map(|value| (value * 255.0).clamp(0.0, 255.0))
    }

    /// A frame that has `yuv` at every pixel and block.
    fn frame(format: PixelFormat, (width, height): (usize, usize), yuv: impl Fn(usize, usize) -> [u8; 3]) -> Frame {
        use PixelFormat::{Nv12, Nv16, Nv21, Nv24, Nv42, Nv61, Uyvy, Vyuy, Yuv420, Yvyu};
        let half = width.div_ceil(2);
        let luma: Vec<u8> = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| yuv(x, y)[0]).collect();
        // pixels that share a sample, across and down
        let (across, down) = match format {
            Nv24 | Nv42 => (1, 1),
            Yuv420 | Nv12 | Nv21 => (2, 2),
            _ => (2, 1),
        };
        let chroma = (0..height.div_ceil(down)).flat_map(|y| (0..width.div_ceil(across)).map(move |x| (x, y)));
        let chroma: Vec<[u8; 2]> = chroma.map(|(x, y)| yuv(across * x, down * y)).map(|[_, u, v]| [u, v]).collect();
        let reversed = || chroma.iter().flat_map(|[u, v]| [*v, *u]).collect::<Vec<u8>>();
        let data = match format {
            Nv12 | Nv16 | Nv24 => [luma, chroma.concat()].concat(),
            Nv21 | Nv61 | Nv42 => [luma, reversed()].concat(),
            Yuv420 => [luma, chroma.iter().map(|b| b[0]).collect(), chroma.iter().map(|b| b[1]).collect::<Vec<u8>>()].concat(),
            _ => (0..height)
                .flat_map(|y| (0..half).map(move |x| (x, y)))
                .flat_map(|(x, y)| {
                    let (left, right, [u, v]) = (yuv(2 * x, y)[0], yuv((2 * x + 1).min(width - 1), y)[0], chroma[y * half + x]);
                    match format {
                        Uyvy => [u, left, v, right],
                        Vyuy => [v, left, u, right],
                        Yvyu => [left, v, right, u],
                        _ => [left, u, right, v],
                    }
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
            for format in self::yuv() {
                let frame = Frame { colour, ..frame(format, size, yuv) };
                let rgb = RgbConverter::new().rgb(&frame).to_vec();
                for (at, pixel) in rgb.chunks(3).enumerate() {
                    let expected = reference(yuv(at % size.0, at / size.0), colour);
                    for (ours, reference) in pixel.iter().zip(expected) {
                        assert!((f64::from(*ours) - reference).abs() <= 1.0, "{format:?} {colour:?} pixel {at}: {pixel:?}, {expected:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn primaries_and_extremes_equal_the_formula_within_a_level() {
        for yuv in [[16, 128, 128], [235, 128, 128], [81, 90, 240], [145, 54, 34], [41, 240, 110], [0, 0, 255], [200, 3, 77]] {
            let rgb = RgbConverter::new().rgb(&frame(PixelFormat::Yuv420, (1, 1), |_, _| yuv)).to_vec();
            for (ours, reference) in rgb.iter().zip(reference(yuv, Colour::default())) {
                assert!((f64::from(*ours) - reference).abs() <= 1.0, "{yuv:?}: {rgb:?}");
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
            for format in self::yuv() {
                let frame = frame(format, size, yuv);
                assert_eq!(converter.rgb(&frame), RgbConverter::new().rgb(&frame), "{format:?} {size:?}");
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_picture() {
        let (width, height) = (37u32, 11);
        for format in PixelFormat::NAMES.map(|(format, _)| format).into_iter().filter(|format| *format != PixelFormat::Mjpg) {
            let data = (0..format.frame_len(width, height).unwrap()).map(|at| (at * 89 % 256) as u8).collect();
            let frame = Frame { format, data, ..Frame::rgb(width, height, vec![0; 3 * 37 * 11]) };
            let on = |isa: Isa| RgbConverter { isa, ..RgbConverter::new() }.rgb(&frame).to_vec();
            suite::everywhere(format, on);
        }
    }

    /// Frames that ffmpeg and GStreamer repacked: `tests/data/pixels/make_pixels.py`.
    #[test]
    fn frames_of_ffmpeg_and_gstreamer_give_the_same_picture() {
        let raw = |name: &str| std::fs::read(format!("{}/../../tests/data/pixels/{name}.raw", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let rgb = |name: &str, format: PixelFormat, (width, height): (u32, u32)| {
            let data = raw(name);
            assert_eq!(Some(data.len()), format.frame_len(width, height), "{name}");
            let frame = Frame { format, data, ..Frame::rgb(width, height, vec![0; (3 * width * height) as usize]) };
            RgbConverter::new().rgb(&frame).to_vec()
        };
        for name in ["rgb0", "0rgb", "bgr0", "0bgr"] {
            assert_eq!(rgb(name, name.parse().unwrap(), (7, 5)), raw("rgb24"), "{name}");
        }
        assert_eq!(rgb("rgb565le", PixelFormat::Rgb565, (8, 4)), raw("rgb565-of.rgb24"));
        let grey: Vec<u8> = raw("gray").iter().flat_map(|level| [*level; 3]).collect();
        assert_eq!(rgb("gray16le", PixelFormat::Grey16, (7, 5)), grey);
        // planes of luma, U and V, the latter `across` times narrower
        let check = |planar: &str, across: usize, (width, height): (usize, usize), names: &[&str]| {
            let (planes, wide) = (raw(planar), width / across);
            for name in names {
                let ours = rgb(name, name.parse().unwrap(), (width as u32, height as u32));
                for (at, pixel) in ours.chunks(3).enumerate() {
                    let (sample, chroma) = (at / width * wide + at % width / across, &planes[width * height..]);
                    let reference = reference([planes[at], chroma[sample], chroma[wide * height + sample]], Colour::default());
                    assert!(
                        pixel.iter().zip(reference).all(|(ours, reference)| (f64::from(*ours) - reference).abs() <= 1.0),
                        "{name} pixel {at}"
                    );
                }
            }
        };
        check("yuv422p", 2, (8, 4), &["yuyv422", "uyvy422", "yvyu422", "nv16", "nv61", "vyuy"]);
        check("yuv444p", 1, (7, 5), &["nv24", "nv42"]);
    }
}
