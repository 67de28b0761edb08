//! Frames as RGB.

use crate::data::{Frame, PixelFormat};
use crate::kernels::arch::Isa;
use crate::kernels::colour::{interleave, levels, spread_chroma};

/// Gives frames as interleaved RGB; buffers are reused from frame to frame.
#[derive(Debug)]
pub struct RgbConverter {
    pub(super) isa: Isa,
    rgb: Vec<u8>,
    /// What chroma adds to a row of red, green and blue.
    offsets: Vec<i32>,
    /// A row of red, one of green, one of blue.
    planes: Vec<u8>,
}

impl Default for RgbConverter {
    fn default() -> Self {
        RgbConverter::new()
    }
}

impl RgbConverter {
    /// Runs on the best instruction set of this CPU.
    pub fn new() -> RgbConverter {
        RgbConverter { isa: Isa::detect(), rgb: Vec::new(), offsets: Vec::new(), planes: Vec::new() }
    }

    /// The frame as interleaved RGB, converted when it is something else.
    pub fn rgb<'a>(&'a mut self, frame: &'a Frame) -> &'a [u8] {
        match frame.format {
            PixelFormat::Rgb24 => &frame.data,
            PixelFormat::Yuv420 => self.yuv420(&frame.data, frame.width as usize, frame.height as usize),
        }
    }

    /// Planar 4:2:0 to interleaved RGB: BT.601, limited range (16..235 luma), chroma of the 2x2 block a pixel lies in. Every result
    /// is within one level of the formula.
    fn yuv420(&mut self, data: &[u8], width: usize, height: usize) -> &[u8] {
        let RgbConverter { isa, rgb, offsets, planes } = self;
        let chroma_width = width.div_ceil(2);
        let (luma, chroma) = data.split_at(width * height);
        let (u_plane, v_plane) = chroma.split_at(chroma_width * height.div_ceil(2));
        let wide = 2 * chroma_width;
        rgb.resize(width * height * 3, 0);
        offsets.resize(wide * 3, 0);
        planes.resize(width * 3, 0);
        for (y, (row, luma)) in rgb.chunks_exact_mut(width * 3).zip(luma.chunks_exact(width)).enumerate() {
            if y % 2 == 0 {
                let samples = y / 2 * chroma_width..(y / 2 + 1) * chroma_width;
                spread_chroma(*isa, &u_plane[samples.clone()], &v_plane[samples], offsets);
            }
            for (offsets, plane) in offsets.chunks_exact(wide).zip(planes.chunks_exact_mut(width)) {
                levels(*isa, luma, offsets, plane);
            }
            let (red, others) = planes.split_at(width);
            let (green, blue) = others.split_at(width);
            interleave(*isa, red, green, blue, row);
        }
        rgb
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_formula_within_a_level() {
        for (y, u, v) in [(16, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110), (0, 0, 255), (200, 3, 77)] {
            let rgb = RgbConverter::new().yuv420(&[y, u, v], 1, 1).to_vec();
            let (y, u, v) = (f64::from(y) - 16.0, f64::from(u) - 128.0, f64::from(v) - 128.0);
            // Kr = 0.299, Kb = 0.114; chroma spans 224 levels
            let (l, scale) = (y * 255.0 / 219.0, 255.0 / 224.0);
            let r = l + 2.0 * (1.0 - 0.299) * v * scale;
            let b = l + 2.0 * (1.0 - 0.114) * u * scale;
            let g = l - (0.114 * 2.0 * (1.0 - 0.114) * u + 0.299 * 2.0 * (1.0 - 0.299) * v) * scale / 0.587;
            for (ours, truth) in rgb.iter().zip([r, g, b]) {
                assert!((f64::from(*ours) - truth.clamp(0.0, 255.0)).abs() <= 1.0, "{rgb:?} against {r} {g} {b}");
            }
        }
    }

    #[test]
    fn odd_sizes_use_the_right_chroma() {
        // 3x3: chroma is 2x2; the last column and row have their own sample
        let mut data = vec![128u8; 9];
        data.extend([128, 128, 128, 255]); // U: only the lower right block is blue
        data.extend([128; 4]);
        let rgb = RgbConverter::new().yuv420(&data, 3, 3).to_vec();
        let blue: Vec<u8> = rgb.chunks(3).map(|p| p[2]).collect();
        assert!(blue[8] > 250 && blue[..8].iter().all(|&b| b == blue[0]), "{blue:?}");
    }

    #[test]
    fn every_instruction_set_gives_the_same_picture() {
        let (width, height) = (37, 11);
        let data: Vec<u8> = (0..width * height + 2 * 19 * 6).map(|at| (at * 89 % 256) as u8).collect();
        let on = |isa: Isa| RgbConverter { isa, ..RgbConverter::new() }.yuv420(&data, width, height).to_vec();
        assert!(Isa::available().into_iter().all(|isa| on(isa) == on(Isa::SCALAR)));
    }
}
