//! [`Frame`] to [`Tensor`]: colour conversion, resize, padding, normalization.
//!
//! ```
//! use eomt_edge_core::data::{Frame, Tensor};
//! use eomt_edge_core::preprocess::Preprocessor;
//! let mut preprocessor = Preprocessor::new([0.5; 3], [0.5; 3], (2, 2));
//! let mut tensor = Tensor::zeros(2, 2);
//! let geometry = preprocessor.run(&Frame::rgb(2, 1, vec![255; 6]), &mut tensor);
//! assert_eq!(geometry.resized, (1, 2));
//! assert_eq!(tensor.values[..4], [1.0, 1.0, -1.0, -1.0]); // the frame, and black padding below it
//! ```
//!
//! Equal to transformers' EomtImageProcessor: 8-bit RGB, bilinear with antialiasing to the input size (aspect ratio kept), zero
//! padding right and bottom, then `(v / 255 - mean) / std`. Invariants: buffers are reused from frame to frame.
//! The [`FrameDecoder`] prepares camera frames: it decodes JPEG pictures, crops, turns and mirrors.
//! Refuses: opening files, anything but a [`Frame`].

mod bayer;
mod colour;
mod decode;
mod jpeg;

use crate::data::{Frame, Geometry, Tensor, Windows};
use crate::kernels::arch::Isa;
use crate::kernels::resize::{Filter, resize_horizontal, resize_vertical};
pub use bayer::Bayer;
pub use colour::RgbConverter;
pub use decode::{DecodeError, FrameDecoder};
pub use jpeg::{JpegDecoder, JpegError, JpegPicture};

/// Turns frames into network input of one size.
pub struct Preprocessor {
    isa: Isa,
    /// (height, width).
    input: (usize, usize),
    /// Normalized value of each channel and 8-bit level.
    levels: [[f32; 256]; 3],
    converter: RgbConverter,
    resized: Resized,
}

/// A resized picture; the vertical pass makes a row on demand.
#[derive(Default)]
struct Resized {
    /// (height, width) before and after.
    sizes: [(usize, usize); 2],
    columns: Filter,
    rows: Filter,
    /// The result of the horizontal pass, as wide as the result and as high as the frame: R, G, B, and an unused byte.
    horizontal: Vec<[u8; 4]>,
    /// The frame's last row and a byte.
    tail: Vec<u8>,
    sums: Vec<i32>,
    /// One row of the result, four bytes a pixel.
    row: Vec<u8>,
}

impl Preprocessor {
    /// `mean` and `std` per channel of values in 0..=1; `input` = (height, width). Runs on the best instruction set of this CPU.
    pub fn new(mean: [f32; 3], std: [f32; 3], input: (usize, usize)) -> Preprocessor {
        let level = |channel: usize, value: usize| (value as f32 / 255.0 - mean[channel]) / std[channel];
        let levels = std::array::from_fn(|channel| std::array::from_fn(|value| level(channel, value)));
        Preprocessor { isa: Isa::detect(), input, levels, converter: RgbConverter::new(), resized: Resized::default() }
    }

    /// Runs on this instruction set: the same results.
    pub fn with_isa(mut self, isa: Isa) -> Preprocessor {
        (self.isa, self.converter.isa) = (isa, isa);
        self
    }

    /// Fits `frame` into the input: aspect ratio kept, padding right and bottom.
    pub fn run(&mut self, frame: &Frame, tensor: &mut Tensor) -> Geometry {
        let geometry = Geometry::fit((frame.height as usize, frame.width as usize), self.input);
        assert_eq!((tensor.height, tensor.width), self.input);
        let Preprocessor { isa, levels, converter, resized, .. } = self;
        let source = converter.rgb(frame);
        resized.resize_horizontal(*isa, source, geometry.frame, geometry.resized);
        normalize(*isa, levels, resized, source, (0, 0), tensor);
        geometry
    }

    /// One tensor per window of `windows`: the frame with its shorter side at the input size, cropped along the longer one.
    pub fn run_windows(&mut self, frame: &Frame, windows: &Windows) -> Vec<Tensor> {
        let Preprocessor { isa, levels, converter, resized, input } = self;
        let size = (frame.height as usize, frame.width as usize);
        let source = converter.rgb(frame);
        resized.resize_horizontal(*isa, source, size, windows.resized);
        let window = |origin| {
            let mut tensor = Tensor::zeros(input.0, input.1);
            normalize(*isa, levels, resized, source, origin, &mut tensor);
            tensor
        };
        windows.origins.iter().copied().map(window).collect()
    }
}

impl Resized {
    /// The horizontal pass over a picture of interleaved RGB; sizes are (height, width). Equal sizes cost nothing.
    ///
    /// Columns first, then rows, with 8-bit values in between, as torch and Pillow do; the other order is off by one level in a
    /// fifth of the values.
    fn resize_horizontal(&mut self, isa: Isa, source: &[u8], from: (usize, usize), to: (usize, usize)) {
        if self.sizes != [from, to] {
            (self.columns, self.rows) = (Filter::resize(from.1, to.1), Filter::resize(from.0, to.0));
            self.sizes = [from, to];
            self.horizontal.resize(from.0 * to.1, [0; 4]);
            self.sums.resize(to.1 * 4, 0);
            self.row.resize(to.1 * 4, 0);
        }
        if from == to {
            return;
        }
        let (rows, last) = self.horizontal.split_at_mut((from.0 - 1) * to.1);
        for (y, row) in rows.chunks_exact_mut(to.1).enumerate() {
            resize_horizontal(isa, &self.columns, &source[y * from.1 * 3..], row);
        }
        // the kernel reads a byte behind the row, so the last one moves to where there is one
        self.tail.clear();
        self.tail.extend_from_slice(&source[(from.0 - 1) * from.1 * 3..]);
        self.tail.push(0);
        resize_horizontal(isa, &self.columns, &self.tail, last);
    }

    /// Row `y` of the result, and the bytes of a pixel. `source` is the picture given to [`Resized::resize_horizontal`].
    fn row<'a>(&'a mut self, isa: Isa, source: &'a [u8], y: usize) -> (&'a [u8], usize) {
        let [from, to] = self.sizes;
        if from == to {
            return (&source[y * to.1 * 3..][..to.1 * 3], 3);
        }
        resize_vertical(isa, &self.rows, y, self.horizontal.as_flattened(), to.1 * 4, &mut self.sums, &mut self.row);
        (&self.row, 4)
    }
}

/// Fills `tensor` from the picture's part at `origin`; what lies outside of the picture is black before normalization.
fn normalize(isa: Isa, levels: &[[f32; 256]; 3], picture: &mut Resized, source: &[u8], origin: (usize, usize), tensor: &mut Tensor) {
    let (height, width) = (tensor.height, tensor.width);
    let (picture_height, picture_width) = picture.sizes[1];
    let columns = width.min(picture_width.saturating_sub(origin.1));
    let rows = height.min(picture_height.saturating_sub(origin.0));
    for y in 0..rows {
        let (row, step) = picture.row(isa, source, origin.0 + y);
        for (channel, levels) in levels.iter().enumerate() {
            let (values, padding) = tensor.values[(channel * height + y) * width..][..width].split_at_mut(columns);
            // once per step, so that each is a constant
            match step {
                3 => look_up::<3>(levels, &row[origin.1 * 3..], channel, values),
                _ => look_up::<4>(levels, &row[origin.1 * 4..], channel, values),
            }
            padding.fill(levels[0]);
        }
    }
    for (plane, levels) in tensor.values.chunks_exact_mut(height * width).zip(levels) {
        plane[rows * width..].fill(levels[0]);
    }
}

fn look_up<const STEP: usize>(levels: &[f32; 256], row: &[u8], channel: usize, values: &mut [f32]) {
    for (value, pixel) in values.iter_mut().zip(row.as_chunks::<STEP>().0) {
        *value = levels[usize::from(pixel[channel])];
    }
}
