//! `postprocess`: segments from given logits, numbered as the reference numbers them (from 0). The entry point for numerical checks of
//! post-processing.

use std::path::Path;

use anyhow::{Result, bail};
use eomt_edge_core::data::{ClassLogits, Geometry, Logits, NO_SEGMENT, Task, Thresholds};
use eomt_edge_core::model::names;
use eomt_edge_core::segment::{PostProcessConfig, Segmenter, SemanticView, semantic_windows};
use eomt_edge_host::output::usage;
use eomt_edge_host::{bounds, files};

use super::{annotations, tensors};

/// Options of [`postprocess`].
#[derive(Debug, Clone)]
pub struct PostprocessOptions {
    /// What to make of the logits.
    pub task: Task,
    /// (height, width) of the frame, pixels.
    pub frame: (usize, usize),
    /// (height, width) of the network's input, pixels.
    pub input: (usize, usize),
    /// Class numbers that are stuff.
    pub stuff_classes: Vec<u16>,
    /// 0 to 1.
    pub thresholds: Thresholds,
    /// Semantic: cut the padding away. The reference does not, and stretches the padded input over the frame.
    pub unpad: bool,
}

/// Pixels of a frame: as many as pictures may have elsewhere.
const FRAME_PIXELS_MAX: usize = 64 << 20;

/// Pixels of no segment in `ids.png`.
const NONE: u16 = u16::MAX;

/// Writes `ids.png` (16 bit, 65535 = none; semantic: class numbers) and `segments.json` into `directory`. `input` is a safetensors file with
/// `class_queries_logits` `[1, Q, C + 1]` and `masks_queries_logits` `[1, Q, h, w]`.
///
/// # Errors
/// When the file is broken, the options do not fit the logits, or the directory cannot be written.
pub fn postprocess(input: &Path, directory: &Path, options: &PostprocessOptions) -> Result<()> {
    let (height, width) = options.frame;
    if height.checked_mul(width).is_none_or(|pixels| pixels == 0 || pixels > FRAME_PIXELS_MAX) {
        return usage(format!("--width {width} --height {height}: a frame has 1 to {FRAME_PIXELS_MAX} pixels"));
    }
    let logits = read_logits(input)?;
    if logits.height > options.input.0 || logits.width > options.input.1 {
        let (height, width) = options.input;
        return usage(format!("--input-size {height}x{width}: the masks are larger, {}x{}", logits.height, logits.width));
    }
    let classes = logits.class.classes - 1;
    if let Some(class) = options.stuff_classes.iter().find(|&&class| usize::from(class) >= classes) {
        return usage(format!("--stuff {class}: the logits score {classes} classes, 0 to {}", classes - 1));
    }
    let geometry = Geometry::fit(options.frame, options.input);
    let segments = match options.task {
        Task::Semantic => {
            let geometry = if options.unpad { geometry } else { Geometry::stretch(options.frame, options.input) };
            semantic_windows(std::slice::from_ref(&logits), &SemanticView::padded(&geometry))
        }
        task => {
            let config = PostProcessConfig {
                task,
                thresholds: options.thresholds,
                whole_masks: task == Task::Instance,
                ..PostProcessConfig::default()
            };
            Segmenter::new(config.with_stuff(&options.stuff_classes)).segments(&logits, &geometry)
        }
    };
    let number = |id: u16| match options.task {
        _ if id == NO_SEGMENT => NONE,
        Task::Semantic => segments.table[usize::from(id) - 1].category_id,
        _ => id - 1,
    };
    let ids: Vec<u16> = segments.ids.iter().map(|&id| number(id)).collect();
    files::make_directory(directory)?;
    let json = annotations::document(&segments, &[], 1, None);
    files::write(&directory.join("ids.png"), &files::png_grey16(&ids, segments.width, segments.height)?)?;
    files::write(&directory.join("segments.json"), json.as_bytes())
}

fn read_logits(path: &Path) -> Result<Logits> {
    let bytes = files::read(path, &bounds::TENSORS)?;
    let (class_shape, class_values) = tensors::read(&bytes, path, names::CLASS_LOGITS)?;
    let (mask_shape, masks) = tensors::read(&bytes, path, names::MASK_LOGITS)?;
    let ([1, queries, classes], [1, mask_queries, height, width]) = (&class_shape[..], &mask_shape[..]) else {
        bail!("{}: class logits {class_shape:?} and mask logits {mask_shape:?} are not [1, Q, C] and [1, Q, h, w]", path.display());
    };
    if queries != mask_queries || *classes < 2 || *queries >= usize::from(u16::MAX) || *height == 0 || *width == 0 {
        bail!("{}: class logits {class_shape:?} and mask logits {mask_shape:?} do not belong together", path.display());
    }
    let class = ClassLogits { queries: *queries, classes: *classes, values: class_values };
    Ok(Logits { class, kept: (0..*queries).collect(), height: *height, width: *width, masks })
}
