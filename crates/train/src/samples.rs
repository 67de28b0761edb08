//! Pictures to learn from: procedural scenes, or annotated ones ([`eomt_edge_tools::datasets`]); augmented and cut into patches.
//!
//! Everything random follows from (seed, step, place in the batch), so that a resumed run sees what an uninterrupted one sees.

mod clips;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use eomt_edge_core::data::{Exif, Task};
use eomt_edge_core::scenes::{self, LABELS, Rng};
use eomt_edge_host::output::usage;
use eomt_edge_host::pictures::read_annotated;
use eomt_edge_tools::datasets::labels::Class;
use eomt_edge_tools::datasets::{Dataset, Format, NamedBy};
use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::loss::Targets;

pub(super) use clips::Clips;

/// The pictures to learn from.
#[derive(Debug, Clone)]
pub enum Pictures {
    /// Procedural scenes ([`eomt_edge_core::scenes`]), drawn when they are needed. None repeats.
    Scenes {
        /// The same seed draws the same scenes.
        seed: u64,
    },
    /// Annotated pictures.
    Annotated {
        /// Directory of the pictures; `None` when the dataset locates them.
        images: Option<PathBuf>,
        /// Their annotations.
        dataset: Arc<dyn Format>,
    },
    /// Annotated clips, for networks whose queries go on from frame to frame (VidEoMT).
    Clips {
        /// A clip or a folder of clips, as `evaluate --video` reads them.
        directory: PathBuf,
        /// Consecutive frames that are learned from together.
        frames: usize,
    },
}

/// Side of a drawn scene, pixels, as in the validation sets.
pub(super) const SCENE_SIDE: u32 = 192;
/// Stuff among the labels of scenes.
const SCENE_STUFF: [usize; 3] = [6, 7, 8];

/// Random changes of the pictures.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Mirror half of the pictures.
    pub flip: bool,
    /// Scale by a factor in this range, then crop or pad to the input.
    pub scale: [f64; 2],
    /// Brightness, contrast and saturation: up to this share more or less, each in half of the pictures. 0 to 1.
    pub colour: f64,
    /// Probability of each of blur, noise and darkness, 0 to 1.
    pub degrade: f64,
}

impl Default for Augmentation {
    fn default() -> Augmentation {
        Augmentation { flip: true, scale: [0.8, 1.25], colour: 0.2, degrade: 0.0 }
    }
}

/// One picture as the network sees it.
pub(super) struct Sample {
    /// `[N, 3 P P]`: patches by row, each by channel, row, column; normalized.
    pub patches: Vec<f32>,
    pub targets: Targets,
}

/// A picture and its segments.
pub(super) struct Picture {
    rgb: RgbImage,
    /// `[height, width]`, an index into `classes`, or [`VOID`].
    segments: Vec<u16>,
    classes: Vec<usize>,
}

impl Picture {
    /// Whether any pixel belongs to the segment at this place.
    pub(super) fn shows(&self, place: usize) -> bool {
        self.segments.iter().any(|&segment| usize::from(segment) == place)
    }
}

/// Pictures with more pixels are refused.
pub(super) const MAX_PIXELS: u64 = 64 << 20;
const VOID: u16 = u16::MAX;

/// A supply of pictures.
pub(super) enum Supply {
    Scenes {
        seed: u64,
    },
    /// With its fingerprint.
    Annotated(Box<Dataset>, String),
    Clips(Box<Clips>),
}

impl Supply {
    /// Opens and checks all pictures. `labels` are the classes of the checkpoint, for datasets that name none.
    /// Of every `held_out` annotated pictures the last one is left out.
    pub(super) fn open(pictures: &Pictures, exif: Exif, labels: Option<&[String]>, held_out: Option<usize>) -> Result<Supply> {
        let (images, dataset) = match pictures {
            Pictures::Scenes { seed } => return Ok(Supply::Scenes { seed: *seed }),
            Pictures::Clips { directory, frames } => return Ok(Supply::Clips(Box::new(Clips::open(directory, *frames)?))),
            Pictures::Annotated { images, dataset } => (images, dataset),
        };
        if images.is_none() && !dataset.locates_pictures() {
            return usage("--images is needed: the directory of the annotated pictures");
        }
        let mut set = Dataset::open(&**dataset, images.as_deref(), labels, (MAX_PIXELS, exif))?;
        if set.named_by() == NamedBy::Unknown {
            return usage("--class-names is needed: no file beside the class maps names their values");
        }
        distinct(set.classes())?;
        let mut hash = set.fingerprint()?;
        set.check_pictures()?; // all of them, before some are left out
        if let Some(every) = held_out {
            if set.len() < every {
                return usage(format!("--validate {every}: of {} pictures it would hold out none", set.len()));
            }
            set.hold_out(every, false);
            hash = format!("{every} {hash}");
        }
        set.keep_annotated()?;
        set.check_sizes()?;
        set.check_content()?;
        Ok(Supply::Annotated(Box::new(set), hash))
    }

    /// Whether the annotations are classes of pixels only.
    pub(super) fn is_semantic(&self) -> bool {
        matches!(self, Supply::Annotated(set, _) if set.natural_task() == Some(Task::Semantic))
    }

    /// What a batch consists of.
    pub(super) fn unit(&self) -> &'static str {
        if self.is_video() { "windows" } else { "images" }
    }

    /// Whether it has clips.
    pub(super) fn is_video(&self) -> bool {
        matches!(self, Supply::Clips(_))
    }

    /// Class names, and the places of those that the dataset calls stuff.
    pub(super) fn labels(&self) -> (Vec<String>, Vec<usize>) {
        match self {
            Supply::Scenes { .. } => (LABELS.map(String::from).to_vec(), SCENE_STUFF.to_vec()),
            Supply::Annotated(dataset, _) => named(dataset.classes()),
            Supply::Clips(clips) => named(clips.classes()),
        }
    }

    /// The description of the data, for the recipe: it must not change when a run is resumed.
    pub(super) fn describe(&self) -> String {
        match self {
            Supply::Scenes { seed } => format!("procedural scenes, seed {seed}"),
            Supply::Clips(clips) => clips.describe(),
            Supply::Annotated(dataset, hash) => {
                let exif = if dataset.exif() == Exif::Ignore { ", EXIF ignored" } else { "" };
                let (every, hash) = hash.split_once(' ').unwrap_or(("", hash));
                let held_out = if every.is_empty() { String::new() } else { format!(", one of {every} held out") };
                format!("{} annotated images (JSON {hash:.12}{exif}{held_out})", dataset.len())
            }
        }
    }

    /// The `position`th picture of the run: scenes never repeat, a folder is gone through in a new order each time.
    fn picture(&self, position: u64, seed: u64) -> Result<Picture> {
        match self {
            Supply::Scenes { seed } => Ok(scene(*seed, position)),
            Supply::Annotated(dataset, _) => {
                let count = dataset.len() as u64;
                let index = permuted(position % count, count, Rng::new(seed, position / count).bits());
                annotated(dataset, index as usize, &mut vec![])
            }
            Supply::Clips(_) => unreachable!("clips are not gone through by picture"),
        }
    }

    /// The sample at `place` of the batch of `step`.
    pub(super) fn sample(&self, order: &Order, step: u64, place: usize) -> Result<Sample> {
        let position = step * order.batch as u64 + place as u64;
        let picture = self.picture(position, order.seed)?;
        let mut rng = Rng::new(order.seed ^ 0xa06, position);
        Ok(cut(augment(picture, order, &mut rng), order))
    }
}

/// Names of classes, and the places of stuff among them.
fn named(classes: &[Class]) -> (Vec<String>, Vec<usize>) {
    let stuff = classes.iter().enumerate().filter(|(_, class)| class.is_thing == Some(false));
    (classes.iter().map(|class| class.name.clone()).collect(), stuff.map(|(index, _)| index).collect())
}

/// Refuses two classes of one name: a checkpoint could not distinguish them.
fn distinct(classes: &[Class]) -> Result<()> {
    let mut seen = HashMap::new();
    match classes.iter().find_map(|class| Some((class, seen.insert(class.name.as_str(), class.id)?))) {
        Some((class, other)) => {
            bail!("categories {other} and {} have the same name, {}: one of them must be renamed", class.id, class.name)
        }
        None => Ok(()),
    }
}

/// What decides which sample comes when, and its form.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub seed: u64,
    pub batch: usize,
    /// Input and patch, pixels.
    pub side: usize,
    pub patch: usize,
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub augmentation: Augmentation,
}

/// Where `index` of `count` goes in the order that `key` names: a walk of a Feistel network over the next power of four.
pub(super) fn permuted(index: u64, count: u64, key: u64) -> u64 {
    let half = (64 - (count.max(2) - 1).leading_zeros()).div_ceil(2);
    let mask = (1u64 << half) - 1;
    let mut at = index;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..4 {
            let hash = Rng::new(key ^ right, round).bits() & mask;
            (left, right) = (right, left ^ hash);
        }
        at = left << half | right;
        if at < count {
            return at;
        }
    }
}

fn scene(seed: u64, index: u64) -> Picture {
    let scene = scenes::sample(seed, index, SCENE_SIDE);
    let places: HashMap<u16, u16> = scene.classes.iter().zip(0..).map(|((id, _), place)| (*id, place)).collect();
    let rgb = RgbImage::from_raw(SCENE_SIDE, SCENE_SIDE, scene.rgb).expect("a scene of this size");
    let segments = scene.ids.iter().map(|id| places.get(id).copied().unwrap_or(VOID)).collect();
    Picture { rgb, segments, classes: scene.classes.iter().map(|(_, class)| usize::from(*class)).collect() }
}

/// A picture and its segments. `objects`, (id, class) by place, holds those of the clip's frames before, and gets the new ones.
pub(super) fn annotated(dataset: &Dataset, index: usize, objects: &mut Vec<(u32, usize)>) -> Result<Picture> {
    let path = &dataset.image(index).path;
    let map = dataset.segments(index)?;
    let frame = read_annotated(path, MAX_PIXELS, dataset.exif(), (map.width, map.height))?;
    let mut places: HashMap<u32, u16> = HashMap::new();
    // A crowd is not a segment to find: its pixels are void.
    for segment in map.segments.iter().filter(|segment| !segment.crowd) {
        let object = (segment.id, segment.class);
        let place = objects.iter().position(|other| *other == object).unwrap_or(objects.len());
        if place == objects.len() {
            objects.push(object);
        }
        match u16::try_from(place) {
            Ok(place) if place != VOID => places.insert(segment.id, place),
            _ => bail!("{}: has too many segments, more than {}", path.display(), VOID - 1),
        };
    }
    let Some(rgb) = RgbImage::from_raw(frame.width, frame.height, frame.data) else {
        bail!("{}: is no RGB picture", path.display());
    };
    let segments = map.ids.iter().map(|id| places.get(id).copied().unwrap_or(VOID)).collect();
    Ok(Picture { rgb, segments, classes: objects.iter().map(|(_, class)| *class).collect() })
}

/// Scale, crop, mirror and colour, in this order. The result has the input's size; what the picture does not fill is black and void,
/// to the right and below, as the image processor pads.
pub(super) fn augment(picture: Picture, order: &Order, rng: &mut Rng) -> Picture {
    let Augmentation { flip, scale, colour, degrade } = order.augmentation;
    let (width, height) = picture.rgb.dimensions();
    let fit = order.side as f64 / f64::from(width.max(height)) * rng.uniform(scale[0], scale[1]);
    let scaled = |length: u32| ((f64::from(length) * fit).round() as u32).max(1);
    let (across, down) = (scaled(width), scaled(height));
    let large = resize(&picture.rgb, across, down, FilterType::Triangle);
    let side = order.side as u32;
    let offset = |length: u32, rng: &mut Rng| if length > side { rng.choice(0, (length - side + 1) as usize) as u32 } else { 0 };
    let (left, top) = (offset(across, rng), offset(down, rng));
    let mirrored = flip && rng.chance(0.5);
    let mut rgb = RgbImage::new(side, side);
    let mut segments = vec![VOID; order.side * order.side];
    for y in 0..side.min(down) {
        for x in 0..side.min(across) {
            let (u, v) = (left + x, top + y);
            let (u, to) = if mirrored { (u, side.min(across) - 1 - x) } else { (u, x) };
            rgb.put_pixel(to, y, *large.get_pixel(u, v));
            let nearest = |at: u32, from: u32, of: u32| ((f64::from(at) + 0.5) * f64::from(of) / f64::from(from)) as u32;
            let (u, v) = (nearest(u, across, width).min(width - 1), nearest(v, down, height).min(height - 1));
            segments[(y * side + to) as usize] = picture.segments[(v * width + u) as usize];
        }
    }
    if colour > 0.0 {
        tint(&mut rgb, colour, rng);
    }
    if degrade > 0.0 {
        rgb = scenes::degrade(rgb, degrade, rng);
    }
    Picture { rgb, segments, classes: picture.classes }
}

/// Brightness, contrast and saturation.
fn tint(rgb: &mut RgbImage, strength: f64, rng: &mut Rng) {
    let mut factor = || if rng.chance(0.5) { rng.uniform(1.0 - strength, 1.0 + strength) as f32 } else { 1.0 };
    let (brightness, contrast, saturation) = (factor(), factor(), factor());
    let count = rgb.as_raw().len() as f32;
    let mean = rgb.as_raw().iter().map(|&level| f32::from(level)).sum::<f32>() / count;
    for pixel in rgb.pixels_mut() {
        let levels = pixel.0.map(f32::from);
        let grey = 0.299 * levels[0] + 0.587 * levels[1] + 0.114 * levels[2];
        pixel.0 = levels.map(|level| {
            let saturated = grey + (level - grey) * saturation;
            ((mean + (saturated - mean) * contrast) * brightness) as u8 // saturates at 0 and 255
        });
    }
}

/// Normalizes, cuts into patches, and takes the segments that are left apart.
fn cut(picture: Picture, order: &Order) -> Sample {
    let left: Vec<usize> = (0..picture.classes.len()).filter(|place| picture.shows(*place)).collect();
    let classes: Vec<usize> = left.iter().map(|place| picture.classes[*place]).collect();
    cut_all(picture, order, &left, &classes)
}

/// [`cut`] with the segments at these places, also where they have no pixels.
pub(super) fn cut_all(picture: Picture, order: &Order, places: &[usize], classes: &[usize]) -> Sample {
    let (side, patch) = (order.side, order.patch);
    let grid = side / patch;
    let mut patches = vec![0.0f32; 3 * side * side];
    for (at, pixel) in picture.rgb.pixels().enumerate() {
        let (x, y) = (at % side, at / side);
        let start = (y / patch * grid + x / patch) * 3 * patch * patch + y % patch * patch + x % patch;
        for c in 0..3 {
            patches[start + c * patch * patch] = (f32::from(pixel.0[c]) / 255.0 - order.mean[c]) / order.std[c];
        }
    }
    let mut masks = Vec::with_capacity(places.len() * side * side);
    for place in places {
        masks.extend(picture.segments.iter().map(|&segment| f32::from(u8::from(usize::from(segment) == *place))));
    }
    Sample { patches, targets: Targets { classes: classes.to_vec(), plane: [side, side], masks } }
}
