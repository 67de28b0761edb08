//! `preprocess`: the `pixel_values` of a picture, for numerical checks.

use std::path::Path;

use anyhow::Result;
use eomt_edge_core::data::{Exif, Tensor};
use eomt_edge_core::model::{IMAGENET_MEAN, IMAGENET_STD, names};
use eomt_edge_core::preprocess::Preprocessor;
use eomt_edge_host::pictures::read_picture_as;

use super::tensors;

/// Writes `pixel_values` (f32 `[1, 3, H, W]`) of `image` for an input of `size` = (height, width), normalized with
/// ImageNet's mean and standard deviation. Refuses pictures of more than `max_pixels`.
///
/// # Errors
/// When the picture is missing, broken or too large, or `output` cannot be written.
pub fn preprocess(image: &Path, size: (usize, usize), output: &Path, (max_pixels, exif): (u64, Exif)) -> Result<()> {
    let frame = read_picture_as(image, max_pixels, exif)?;
    let mut tensor = Tensor::zeros(size.0, size.1);
    Preprocessor::new(IMAGENET_MEAN, IMAGENET_STD, size).run(&frame, &mut tensor);
    tensors::write(output, &[(names::INPUT, vec![1, 3, size.0, size.1], &tensor.values)])
}
