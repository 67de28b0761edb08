//! Label sets: the class names of the datasets on which the published models were trained, in the order of their class heads.
//!
//! A checkpoint or an export with exactly these classes needs no list of stuff classes: the label set has it.

use crate::data::Task;

/// COCO panoptic 2017: 80 things, then 53 stuff classes, in the order of the category ids without their gaps.
#[rustfmt::skip]
pub const COCO_PANOPTIC: [&str; 133] = [
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant", "stop sign",
    "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack",
    "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
    "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush", "banner", "blanket", "bridge",
    "cardboard", "counter", "curtain", "door-stuff", "floor-wood", "flower", "fruit", "gravel", "house", "light", "mirror-stuff", "net",
    "pillow", "platform", "playingfield", "railroad", "river", "road", "roof", "sand", "sea", "shelf", "snow", "stairs", "tent", "towel",
    "wall-brick", "wall-stone", "wall-tile", "wall-wood", "water-other", "window-blind", "window-other", "tree-merged", "fence-merged",
    "ceiling-merged", "sky-other-merged", "cabinet-merged", "table-merged", "floor-other-merged", "pavement-merged", "mountain-merged",
    "grass-merged", "dirt-merged", "paper-merged", "food-other-merged", "building-other-merged", "rock-merged", "wall-other-merged",
    "rug-merged",
];

/// ADE20K (SceneParse150), in the order of `objectInfo150.txt`; the first of the synonyms there.
#[rustfmt::skip]
pub const ADE20K: [&str; 150] = [
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk", "person", "earth",
    "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror",
    "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box",
    "column", "signboard", "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
    "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table",
    "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat",
    "bar", "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth",
    "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet",
    "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool", "barrel",
    "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name", "microwave", "pot",
    "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray",
    "ashcan", "fan", "pier", "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
];

/// Cityscapes, by train id.
#[rustfmt::skip]
pub const CITYSCAPES: [&str; 19] = [
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person",
    "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
];

/// Where the stuff of COCO panoptic starts; before it are the 80 classes of COCO instance.
pub const COCO_THINGS: usize = 80;

/// The stuff of ADE20K in panoptic segmentation.
#[rustfmt::skip]
pub const ADE20K_STUFF: [usize; 50] = [
    0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59, 60, 61, 63, 68, 77, 79, 84, 91, 94, 96,
    99, 100, 101, 105, 106, 109, 113, 114, 117, 122, 128, 131, 140, 141, 145,
];

/// The classes of a dataset on which published models were trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelSet {
    /// COCO 2017.
    Coco,
    /// ADE20K, 150 classes.
    Ade20k,
    /// Cityscapes, 19 classes.
    Cityscapes,
}

impl LabelSet {
    /// Class names for a task; COCO has fewer classes for instances than for panoptic segmentation.
    pub fn labels(self, task: Task) -> &'static [&'static str] {
        match (self, task) {
            (LabelSet::Coco, Task::Instance) => &COCO_PANOPTIC[..COCO_THINGS],
            (LabelSet::Coco, _) => &COCO_PANOPTIC,
            (LabelSet::Ade20k, _) => &ADE20K,
            (LabelSet::Cityscapes, _) => &CITYSCAPES,
        }
    }

    /// The classes whose segments are merged. Instances have none, in semantic segmentation all are.
    pub fn stuff(self, task: Task) -> Vec<usize> {
        match (self, task) {
            (_, Task::Instance) => vec![],
            (_, Task::Semantic) | (LabelSet::Cityscapes, _) => (0..self.labels(task).len()).collect(),
            (LabelSet::Coco, Task::Panoptic) => (COCO_THINGS..COCO_PANOPTIC.len()).collect(),
            (LabelSet::Ade20k, Task::Panoptic) => ADE20K_STUFF.to_vec(),
        }
    }

    /// The set that has exactly these classes, and the task when the classes tell it.
    pub fn of(labels: &[String]) -> Option<(LabelSet, Option<Task>)> {
        let known = [
            (LabelSet::Coco, Task::Panoptic, true),
            (LabelSet::Coco, Task::Instance, true),
            (LabelSet::Ade20k, Task::Panoptic, false),
            (LabelSet::Cityscapes, Task::Semantic, true),
        ];
        let same = |table: &[&str]| table.len() == labels.len() && table.iter().zip(labels).all(|(a, b)| *a == plain(b));
        let (set, task, certain) = known.into_iter().find(|(set, task, _)| same(set.labels(*task)))?;
        Some((set, certain.then_some(task)))
    }
}

/// The first of the synonyms that some label files list, in lower case.
fn plain(label: &str) -> String {
    let first = label.split([',', ';']).next().unwrap_or_default();
    first.trim().replace('_', " ").to_ascii_lowercase()
}
