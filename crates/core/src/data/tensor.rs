//! The network's input.

/// Normalized pixel values, `[1, 3, height, width]` f32 in row-major order. Which part of it the frame covers is
/// [`Geometry::resized`](super::Geometry::resized).
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Rows, pixels.
    pub height: usize,
    /// Columns, pixels.
    pub width: usize,
    /// `3 * height * width` values, channel first.
    pub values: Vec<f32>,
}

impl Tensor {
    /// A zero tensor of `3 x height x width`.
    pub fn zeros(height: usize, width: usize) -> Tensor {
        Tensor { height, width, values: vec![0.0; 3 * height * width] }
    }
}
