//! The network's input.

/// Normalized pixel values, `[1, 3, height, width]` f32 in row-major order, with the area of it that the frame covers.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub height: usize,
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
