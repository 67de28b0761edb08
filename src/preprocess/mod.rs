//! [`Frame`] to [`Tensor`]: colour conversion, resize, padding, normalization.
//!
//! ```
//! use eomt_edge::data::{Frame, Tensor};
//! use eomt_edge::preprocess::Preprocessor;
//! let mut preprocessor = Preprocessor::new([0.5; 3], [0.5; 3], (2, 2));
//! let mut tensor = Tensor::zeros(2, 2);
//! let geometry = preprocessor.run(&Frame::rgb(2, 1, vec![255; 6]), &mut tensor);
//! assert_eq!(geometry.resized, (1, 2));
//! assert_eq!(tensor.values[..4], [1.0, 1.0, -1.0, -1.0]); // the frame, and black padding below it
//! ```
//!
//! Equal to transformers' EomtImageProcessor: 8-bit RGB, bilinear with antialiasing to the input size (aspect ratio kept), zero
//! padding right and bottom, then `(v / 255 - mean) / std`. Invariants: buffers are reused from frame to frame.
//! Refuses: decoding files, cropping, anything but a [`Frame`].

mod colour;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::data::{Frame, Geometry, PixelFormat, Tensor, Windows};
pub use colour::yuv420_to_rgb;

/// Turns frames into network input of one size.
pub struct Preprocessor {
    /// (height, width).
    input: (usize, usize),
    /// Normalized value of each channel and 8-bit level.
    levels: [[f32; 256]; 3],
    resizer: Resizer,
    rgb: Vec<u8>,
    /// As wide as the result, as high as the frame.
    narrowed: Vec<u8>,
    resized: Vec<u8>,
}

impl Preprocessor {
    /// `mean` and `std` per channel of values in 0..=1; `input` = (height, width).
    pub fn new(mean: [f32; 3], std: [f32; 3], input: (usize, usize)) -> Preprocessor {
        let level = |channel: usize, value: usize| (value as f32 / 255.0 - mean[channel]) / std[channel];
        let levels = std::array::from_fn(|channel| std::array::from_fn(|value| level(channel, value)));
        Preprocessor { input, levels, resizer: Resizer::new(), rgb: Vec::new(), narrowed: Vec::new(), resized: Vec::new() }
    }

    /// Fits `frame` into the input: aspect ratio kept, padding right and bottom.
    pub fn run(&mut self, frame: &Frame, tensor: &mut Tensor) -> Geometry {
        let geometry = Geometry::fit((frame.height as usize, frame.width as usize), self.input);
        assert_eq!((tensor.height, tensor.width), self.input);
        let Preprocessor { levels, resizer, rgb, narrowed, resized, .. } = self;
        let pixels = resize(resizer, frame_rgb(frame, rgb), geometry.frame, geometry.resized, [narrowed, resized]);
        normalize(levels, pixels, geometry.resized, (0, 0), tensor);
        geometry
    }

    /// One tensor per window of `windows`: the frame with its shorter side at the input size, cut along the longer one.
    pub fn run_windows(&mut self, frame: &Frame, windows: &Windows) -> Vec<Tensor> {
        let Preprocessor { levels, resizer, rgb, narrowed, resized, input } = self;
        let size = (frame.height as usize, frame.width as usize);
        let pixels = resize(resizer, frame_rgb(frame, rgb), size, windows.resized, [narrowed, resized]);
        let window = |origin| {
            let mut tensor = Tensor::zeros(input.0, input.1);
            normalize(levels, pixels, windows.resized, origin, &mut tensor);
            tensor
        };
        windows.origins.iter().copied().map(window).collect()
    }
}

/// The frame as interleaved RGB; `buffer` holds it when a conversion is due.
pub fn frame_rgb<'a>(frame: &'a Frame, buffer: &'a mut Vec<u8>) -> &'a [u8] {
    match frame.format {
        PixelFormat::Rgb24 => &frame.data,
        PixelFormat::Yuv420 => {
            yuv420_to_rgb(&frame.data, frame.width as usize, frame.height as usize, buffer);
            buffer
        }
    }
}

/// Bilinear with antialiasing on 8-bit RGB; sizes are (height, width).
///
/// Columns first, then rows, with 8-bit values in between, as torch and Pillow do; the library's own order is the other one, which
/// is off by one level in a fifth of the values.
fn resize<'a>(
    resizer: &mut Resizer,
    source: &'a [u8],
    from: (usize, usize),
    to: (usize, usize),
    [narrowed, resized]: [&'a mut Vec<u8>; 2],
) -> &'a [u8] {
    let source = resize_pass(resizer, source, from, (from.0, to.1), narrowed);
    resize_pass(resizer, source, (from.0, to.1), to, resized)
}

/// One direction; a size that stays costs nothing.
fn resize_pass<'a>(resizer: &mut Resizer, source: &'a [u8], from: (usize, usize), to: (usize, usize), buffer: &'a mut Vec<u8>) -> &'a [u8] {
    if from == to {
        return source;
    }
    buffer.resize(to.0 * to.1 * 3, 0);
    let source = TypedImageRef::<U8x3>::from_buffer(from.1 as u32, from.0 as u32, source).expect("a frame's length fits its size");
    let mut target = TypedImage::<U8x3>::from_buffer(to.1 as u32, to.0 as u32, buffer).expect("the buffer has just been sized");
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    resizer.resize_typed(&source, &mut target, &options).expect("both pictures have pixels of the same type");
    buffer
}

/// Fills `tensor` from the picture's part at `origin`; what lies outside of the picture is black before normalization.
fn normalize(levels: &[[f32; 256]; 3], pixels: &[u8], size: (usize, usize), origin: (usize, usize), tensor: &mut Tensor) {
    let (height, width) = (tensor.height, tensor.width);
    let columns = width.min(size.1.saturating_sub(origin.1));
    for (channel, plane) in tensor.values.chunks_exact_mut(height * width).enumerate() {
        let levels = &levels[channel];
        for (y, row) in plane.chunks_exact_mut(width).enumerate() {
            let (picture, padding) = if origin.0 + y < size.0 { row.split_at_mut(columns) } else { row.split_at_mut(0) };
            if !picture.is_empty() {
                let start = ((origin.0 + y) * size.1 + origin.1) * 3;
                for (value, pixel) in picture.iter_mut().zip(pixels[start..].chunks_exact(3)) {
                    *value = levels[usize::from(pixel[channel])];
                }
            }
            padding.fill(levels[0]);
        }
    }
}
