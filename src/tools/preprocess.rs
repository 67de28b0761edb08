//! `preprocess`: the `pixel_values` that a picture gives.

use std::path::Path;

use anyhow::Result;

use super::tensors;
use crate::data::Tensor;
use crate::model::{IMAGENET_MEAN, IMAGENET_STD, names};
use crate::preprocess::Preprocessor;
use crate::source::read_picture;

/// Writes `pixel_values` (f32 `[1, 3, H, W]`) of `image` for an input of `size` = (height, width), ImageNet statistics.
pub fn preprocess(image: &Path, size: (usize, usize), output: &Path, max_pixels: u64) -> Result<()> {
    let frame = read_picture(image, max_pixels)?;
    let mut tensor = Tensor::zeros(size.0, size.1);
    Preprocessor::new(IMAGENET_MEAN, IMAGENET_STD, size).run(&frame, &mut tensor);
    tensors::write(output, &[(names::INPUT, vec![1, 3, size.0, size.1], &tensor.values)])
}
