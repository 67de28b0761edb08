//! The authors' published models by name: task, classes, size, input.
//!
//! Source: the model zoo and the training configurations of <https://github.com/tue-mps/eomt>, MIT licence. A model has the
//! name of its repository on the hub and, where that differs, the one that its configuration logs under.

use std::path::Path;

use eomt_edge_core::data::Task;

use super::labels::Dataset;

/// The four backbones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Base,
    Large,
    Giant,
}

impl Size {
    /// D of the token.
    pub fn hidden(self) -> usize {
        [384, 768, 1024, 1536][self as usize]
    }

    pub fn blocks(self) -> usize {
        [12, 12, 24, 40][self as usize]
    }

    /// L2: the queries join for this many last blocks.
    pub fn query_blocks(self) -> usize {
        [3, 3, 4, 5][self as usize]
    }
}

/// One published model; all have patch 16, 4 register tokens and heads of 64.
#[derive(Debug, PartialEq)]
pub(super) struct Preset {
    /// The name on the hub first, then the others.
    pub names: &'static [&'static str],
    pub task: Task,
    pub dataset: Dataset,
    pub size: Size,
    /// DINOv3 backbone, published as a difference to Meta's weights; else DINOv2, published whole.
    pub dinov3: bool,
    /// Side of the square input in pixels.
    pub input: usize,
    pub queries: usize,
}

/// The published model that is too large for the boards this program is for.
const TOO_LARGE: &str = "coco_panoptic_eomt_7b_640";

macro_rules! preset {
    ($dataset:ident $task:ident $size:ident $input:literal $queries:literal $backbone:ident: $($name:literal),+) => {
        Preset {
            names: &[$($name),+],
            task: Task::$task,
            dataset: Dataset::$dataset,
            size: Size::$size,
            dinov3: preset!(@ $backbone),
            input: $input,
            queries: $queries,
        }
    };
    (@ dinov2) => { false };
    (@ dinov3) => { true };
}

#[rustfmt::skip]
pub(super) static PRESETS: [Preset; 21] = [
    preset!(Coco Panoptic Small 640 200 dinov2: "coco_panoptic_eomt_small_640_2x", "coco_panoptic_eomt_small_640", "coco_panoptic_eomt_small_640_1x"),
    preset!(Coco Panoptic Base 640 200 dinov2: "coco_panoptic_eomt_base_640_2x", "coco_panoptic_eomt_base_640", "coco_panoptic_eomt_base_640_1x"),
    preset!(Coco Panoptic Large 640 200 dinov2: "coco_panoptic_eomt_large_640"),
    preset!(Coco Panoptic Giant 640 200 dinov2: "coco_panoptic_eomt_giant_640"),
    preset!(Coco Panoptic Large 1280 200 dinov2: "coco_panoptic_eomt_large_1280"),
    preset!(Coco Panoptic Giant 1280 200 dinov2: "coco_panoptic_eomt_giant_1280"),
    preset!(Ade20k Panoptic Large 640 200 dinov2: "ade20k_panoptic_eomt_large_640"),
    preset!(Ade20k Panoptic Giant 640 200 dinov2: "ade20k_panoptic_eomt_giant_640"),
    preset!(Ade20k Panoptic Large 1280 200 dinov2: "ade20k_panoptic_eomt_large_1280"),
    preset!(Ade20k Panoptic Giant 1280 200 dinov2: "ade20k_panoptic_eomt_giant_1280"),
    preset!(Cityscapes Semantic Large 1024 100 dinov2: "cityscapes_semantic_eomt_large_1024"),
    preset!(Ade20k Semantic Large 512 100 dinov2: "ade20k_semantic_eomt_large_512"),
    preset!(Coco Instance Large 640 200 dinov2: "coco_instance_eomt_large_640"),
    preset!(Coco Instance Large 1280 200 dinov2: "coco_instance_eomt_large_1280"),
    preset!(Coco Panoptic Small 640 200 dinov3: "coco_panoptic_eomt_small_640_dinov3", "coco_panoptic_eomt_small_640_2x_dinov3"),
    preset!(Coco Panoptic Base 640 200 dinov3: "coco_panoptic_eomt_base_640_dinov3", "coco_panoptic_eomt_base_640_2x_dinov3"),
    preset!(Coco Panoptic Large 640 200 dinov3: "coco_panoptic_eomt_large_640_dinov3"),
    preset!(Coco Panoptic Large 1280 200 dinov3: "coco_panoptic_eomt_large_1280_dinov3"),
    preset!(Ade20k Semantic Large 512 100 dinov3: "ade_semantic_eomt_large_512_dinov3", "ade20k_semantic_eomt_large_512_dinov3"),
    preset!(Coco Instance Large 640 200 dinov3: "coco_instance_eomt_large_640_dinov3"),
    preset!(Coco Instance Large 1280 200 dinov3: "coco_instance_eomt_large_1280_dinov3"),
];

/// The meaning of a name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Named {
    Model(&'static Preset),
    /// Published, but not supported: its name.
    TooLarge(&'static str),
}

/// The published model of exactly this name (with or without `tue-mps/` before it).
pub(super) fn named(name: &str) -> Option<Named> {
    let name = name.strip_prefix("tue-mps/").unwrap_or(name);
    if name == TOO_LARGE {
        return Some(Named::TooLarge(TOO_LARGE));
    }
    PRESETS.iter().find(|preset| preset.names.contains(&name)).map(Named::Model)
}

/// The published model that a path names: the nearest component whose name, with or without its extension, ends with a
/// model's, as in `models--tue-mps--coco_panoptic_eomt_large_640/snapshots/0c1e…/pytorch_model.bin`.
pub(super) fn in_path(path: &Path) -> Option<Named> {
    path.ancestors().find_map(|part| [part.file_name(), part.file_stem()].into_iter().flatten().find_map(|name| ending(name.to_str()?)))
}

fn ending(name: &str) -> Option<Named> {
    if name.ends_with(TOO_LARGE) {
        return Some(Named::TooLarge(TOO_LARGE));
    }
    // The longest: no name here ends with another one, but the next one added may.
    let matches = PRESETS.iter().flat_map(|preset| preset.names.iter().map(move |known| (known, preset)));
    matches.filter(|(known, _)| name.ends_with(**known)).max_by_key(|(known, _)| known.len()).map(|(_, preset)| Named::Model(preset))
}
