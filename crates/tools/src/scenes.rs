//! `scenes`: pictures of procedural tabletops with their ground truth, in the layout of COCO panoptic, to evaluate on, to train on and to
//! experiment with. Nothing has to be downloaded.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::scenes::{LABELS, Rng, Sample, degrade, sample};
use eomt_edge_host::files;
use eomt_edge_host::output::say;
use image::RgbImage;
use serde_json::json;

use super::panoptic_folder::PanopticFolder;
use super::progress;

/// Things come first among the labels.
const THINGS: u16 = 6;

/// Segments of a clip with fewer pixels are no ground truth, as those of single pictures.
const AREA_MIN: usize = 16;

/// Options of [`scenes`].
#[derive(Debug, Clone)]
pub struct ScenesOptions {
    /// Directory that gets `images/`, `panoptic/` and `panoptic.json`; must not hold them yet.
    pub output: PathBuf,
    /// Number of pictures.
    pub count: u64,
    /// Pictures of one seed are the same on every machine.
    pub seed: u64,
    /// Pixels of a side.
    pub size: u32,
    /// Names of the classes in the ground truth; all when empty. Pixels of other classes are void.
    pub classes: Vec<String>,
    /// Probability of each of blur, darkness and noise, 0 to 1. The ground truth does not change with it.
    pub degrade: f64,
}

/// Writes the pictures, then the JSON: a folder without it is not finished.
///
/// # Errors
/// When a class is unknown, when the directory holds a dataset already or cannot be written.
pub fn scenes(options: &ScenesOptions) -> Result<()> {
    let known = known(&options.classes)?;
    let mut folder = begin(&options.output)?;
    let bar = progress::bar(options.count, "drawing");
    for index in 0..options.count {
        let mut picture = sample(options.seed, index, options.size);
        forget(&mut picture, &known);
        if options.degrade > 0.0 {
            picture.rgb = degraded(picture.rgb, options, index)?;
        }
        add(&mut folder, &options.output, &picture, (options.size, options.size))?;
        bar.inc(1);
    }
    folder.finish(known.iter().map(category).collect())?;
    bar.finish_and_clear();
    say(format!("{} pictures of {}x{}, seed {}, in {}", options.count, options.size, options.size, options.seed, options.output.display()))
}

/// Makes room for pictures and their ground truth.
pub(crate) fn begin(output: &Path) -> Result<PanopticFolder> {
    let folder = PanopticFolder::begin(output, "dataset")?;
    files::make_directory(&output.join("images"))?;
    Ok(folder)
}

/// Writes the next picture, `(width, height)` pixels, and its ground truth.
pub(crate) fn add(folder: &mut PanopticFolder, output: &Path, picture: &Sample, (width, height): (u32, u32)) -> Result<()> {
    let name = folder.next_name();
    files::write(&output.join("images").join(&name), &files::png_rgb(&picture.rgb, width, height)?)?;
    folder.add(&name, (width, height), picture.ids.iter().copied().map(u32::from), segments(picture, width as usize))
}

fn category(id: &u16) -> serde_json::Value {
    json!({ "id": category_id(*id), "name": LABELS[usize::from(*id)], "isthing": u8::from(*id < THINGS) })
}

/// All classes.
pub(crate) fn categories() -> Vec<serde_json::Value> {
    (0..LABELS.len() as u16).map(|id| category(&id)).collect()
}

/// Takes segments out of the ground truth that do not occur or have few pixels.
pub(crate) fn drop_small(picture: &mut Sample) {
    let area = |id: u16| picture.ids.iter().filter(|other| **other == id).count();
    let small: Vec<u16> = picture.classes.iter().map(|(id, _)| *id).filter(|id| area(*id) < AREA_MIN).collect();
    picture.classes.retain(|(id, _)| !small.contains(id));
    picture.ids.iter_mut().filter(|id| small.contains(id)).for_each(|id| *id = 0);
}

fn degraded(rgb: Vec<u8>, options: &ScenesOptions, index: u64) -> Result<Vec<u8>> {
    let picture = RgbImage::from_raw(options.size, options.size, rgb).context("a scene of this size")?;
    Ok(degrade(picture, options.degrade, &mut Rng::new(options.seed ^ 0xbad, index)).into_raw())
}

/// Class indices of the names, in the order of the labels.
fn known(names: &[String]) -> Result<Vec<u16>> {
    if let Some(name) = names.iter().find(|name| !LABELS.contains(&name.as_str())) {
        bail!("--classes: the scenes have no {name:?}, but {}", LABELS.join(", "));
    }
    let is_known = |(_, label): &(u16, &str)| names.is_empty() || names.iter().any(|name| name == label);
    Ok((0u16..).zip(LABELS).filter(is_known).map(|(index, _)| index).collect())
}

/// From 1 on: 0 is "no class" to some readers (datumaro).
fn category_id(class: u16) -> u16 {
    class + 1
}

/// Removes segments of other classes from the ground truth.
fn forget(picture: &mut Sample, known: &[u16]) {
    picture.classes.retain(|(_, class)| known.contains(class));
    let kept = &picture.classes;
    picture.ids.iter_mut().filter(|id| !kept.iter().any(|(kept, _)| kept == *id)).for_each(|id| *id = 0);
}

/// `segments_info` of one picture: area in pixels, box as x, y, width, height.
fn segments(picture: &Sample, width: usize) -> Vec<serde_json::Value> {
    let of = |&(id, class): &(u16, u16)| {
        let places = picture.ids.iter().enumerate().filter(|(_, other)| **other == id).map(|(at, _)| (at % width, at / width));
        let (mut area, mut low, mut high) = (0, [usize::MAX; 2], [0; 2]);
        for (x, y) in places {
            area += 1;
            low = [low[0].min(x), low[1].min(y)];
            high = [high[0].max(x), high[1].max(y)];
        }
        let bbox = [low[0], low[1], high[0] + 1 - low[0], high[1] + 1 - low[1]];
        json!({ "id": id, "category_id": category_id(class), "iscrowd": 0, "area": area, "bbox": bbox })
    };
    picture.classes.iter().map(of).collect()
}
