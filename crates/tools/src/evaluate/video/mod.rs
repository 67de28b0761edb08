//! `evaluate --video`: how well segments and their ids hold over a clip, over the pipeline and the tracker that the daemon runs.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use eomt_edge_tools::evaluate::Predictions;
//! use eomt_edge_tools::evaluate::video::{VideoOptions, evaluate_video};
//! let model = Predictions::Models(vec!["models/eomt-nano-scenes.onnx".into()]);
//! evaluate_video(&VideoOptions::new("clip".into(), model))?;
//! # Ok(())
//! # }
//! ```
//!
//! A clip is a folder with `panoptic.json` (COCO panoptic: an id stays with its object), `panoptic/` and `images/`; its frames are the
//! images of the JSON, sorted by name. A folder of such folders is a set of clips.
//!
//! | measure | defined by |
//! |---|---|
//! | VPQ | `tubes`: Kim et al. 2020, `eval_vpq.py`; windows of 1 to 4 frames |
//! | STQ, AQ, SQ | `association`: Weber et al. 2021, deeplab2 |
//! | id switches | `switches`: CLEAR MOT, as TrackEval computes it, on masks |
//!
//! Invariants: of each frame only areas are kept, so a clip may be long; every clip begins with a tracker that has seen nothing. Refuses:
//! clips of other classes beside each other, a model without a class of the clips.

mod association;
mod iou_tracker;
mod overlap;
mod report;
mod source;
mod switches;
#[cfg(test)]
mod tests;
mod tubes;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::{Exif, Normalization, TokenMerging};
use eomt_edge_core::model::ReuseConfig;
use eomt_edge_host::bounds::PICTURES_MAX;
use eomt_edge_host::output::{say, usage};
use eomt_edge_host::pictures::read_annotated;
use hotcoco::metrics::panoptic::PqCounts;

use super::{MatchBy, Predictions};
use crate::datasets::labels::{Class, Labels, PanopticMap};
use crate::datasets::{CocoPanoptic, Dataset};
use crate::progress;
use association::Association;
use overlap::FrameOverlap;
use report::Outcome;
use source::{Saved, Source};
use switches::Switches;

/// Where ids come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackerKind {
    /// The daemon's tracker.
    Lasting,
    /// Overlap of boxes alone, to compare with.
    Iou,
    /// None: predictions in files keep their ids, a model's segments are numbered anew in each frame.
    None,
}

/// Options of [`evaluate_video`].
#[derive(Debug, Clone)]
pub struct VideoOptions {
    /// A clip, or a folder of clips.
    pub directory: PathBuf,
    /// One model; or a clip of predictions, or a folder of them with the names of the clips.
    pub predictions: Predictions,
    /// `None`: the daemon's for a model, none for files.
    pub tracker: Option<TrackerKind>,
    /// Seconds for which the daemon's tracker remembers.
    pub memory: f64,
    /// Frames per second.
    pub fps: f64,
    /// How labels and classes are paired.
    pub match_by: MatchBy,
    /// Score, mask and overlap threshold, 0 to 1; `None`: the model's.
    pub thresholds: [Option<f64>; 3],
    /// Only the first frames of each clip.
    pub limit: Option<usize>,
    /// 0: one per core.
    pub threads: usize,
    /// How pictures are normalized for a third-party export.
    pub normalization: Normalization,
    /// Compute what the file has in f32 in bfloat16 where the CPU has such products.
    pub bf16: bool,
    /// Patch tokens that are merged away.
    pub merging: TokenMerging,
    /// Keep what patches had that have not changed since the last frame.
    pub reuse: Option<ReuseConfig>,
    /// Pictures with more pixels are refused.
    pub max_pixels: u64,
    /// Print JSON instead of tables.
    pub json: bool,
    /// Folder that gets the predictions as clips; it must not have them yet.
    pub save: Option<PathBuf>,
}

impl VideoOptions {
    /// The defaults of the command line.
    pub fn new(directory: PathBuf, predictions: Predictions) -> VideoOptions {
        VideoOptions {
            directory,
            predictions,
            tracker: None,
            memory: 5.0,
            fps: 15.0,
            match_by: MatchBy::default(),
            thresholds: [None; 3],
            limit: None,
            threads: 0,
            normalization: Normalization::Auto,
            bf16: false,
            merging: TokenMerging::default(),
            reuse: None,
            max_pixels: 64 << 20,
            json: false,
            save: None,
        }
    }
}

/// A clip's ground truth, opened.
pub struct Clip {
    name: String,
    directory: PathBuf,
    /// Its pictures and segments.
    pub dataset: Dataset,
    /// Places of its frames in the dataset, in the order of their names.
    pub frames: Vec<usize>,
}

/// Opens the clip `directory`, or those in it by name. All have the same classes, and all their pictures are there.
///
/// # Errors
/// When a file is missing or broken, or classes differ.
pub fn open_clips(directory: &Path, max_pixels: u64) -> Result<Vec<Clip>> {
    let clips: Vec<Clip> =
        folders(directory)?.iter().map(|folder| Clip::open(folder, &folder.join("images"), max_pixels)).collect::<Result<_>>()?;
    let classes = clips[0].dataset.classes();
    for clip in &clips {
        clip.dataset.check_pictures()?;
        if clip.dataset.classes() != classes {
            bail!("{}: its categories are not those of {}", clip.directory.display(), clips[0].directory.display());
        }
    }
    Ok(clips)
}

impl Clip {
    fn open(directory: &Path, images: &Path, max_pixels: u64) -> Result<Clip> {
        let format = CocoPanoptic { json: directory.join("panoptic.json"), directory: directory.join("panoptic") };
        let dataset = Dataset::open(&format, Some(images), None, (max_pixels, Exif::Apply))?;
        let mut frames: Vec<usize> = (0..dataset.len()).collect();
        frames.sort_by(|a, b| dataset.image(*a).name.cmp(&dataset.image(*b).name));
        let name = directory.file_name().map_or_else(|| "clip".to_owned(), |name| name.to_string_lossy().into_owned());
        Ok(Clip { name, directory: directory.to_owned(), dataset, frames })
    }

    fn map(&self, frame: usize) -> Result<PanopticMap> {
        match self.dataset.labels(frame, eomt_edge_core::data::Task::Panoptic)? {
            Labels::Panoptic(map) => Ok(map),
            _ => bail!("{}: this is no panoptic ground truth", self.directory.display()),
        }
    }
}

/// Sums over clips.
struct Sums {
    windows: Vec<Vec<PqCounts>>,
    association: Association,
    switches: Vec<Switches>,
}

impl Sums {
    fn new(classes: &[Class]) -> Sums {
        let windows = tubes::WINDOWS.map(|_| vec![PqCounts::default(); classes.len()]).to_vec();
        let association = Association::new(things(classes));
        Sums { windows, association, switches: vec![Switches::default(); classes.len()] }
    }

    fn add(&mut self, clip: &[FrameOverlap], classes: &[Class]) {
        for (counts, length) in self.windows.iter_mut().zip(tubes::WINDOWS) {
            tubes::add(counts, clip, length);
        }
        self.association.add(clip);
        switches::add(&mut self.switches, clip, &things(classes));
    }
}

/// Classes of which nothing is said are things.
fn things(classes: &[Class]) -> Vec<bool> {
    classes.iter().map(|class| class.is_thing != Some(false)).collect()
}

/// Scores the clips and prints the scores to standard output.
///
/// # Errors
/// When a file is missing or broken, sizes differ, classes do not match, or the options contradict each other.
pub fn evaluate_video(options: &VideoOptions) -> Result<()> {
    if options.fps <= 0.0 || !options.fps.is_finite() {
        return usage(format!("--fps {}: frames a second, more than 0", options.fps));
    }
    let clips = open_clips(&options.directory, options.max_pixels)?;
    let classes = clips[0].dataset.classes().to_vec();
    let mut source = Source::open(options, &classes)?;
    let mut sums = Sums::new(&classes);
    let mut outcome = Outcome::new(classes.clone());
    for clip in &clips {
        let overlaps = measure(clip, &mut source, options, clips.len() > 1)?;
        let mut alone = Sums::new(&classes);
        alone.add(&overlaps, &classes);
        sums.add(&overlaps, &classes);
        outcome.add_clip(&clip.name, overlaps.len(), &alone);
    }
    outcome.finish(&sums);
    if options.json { say(outcome.json()) } else { outcome.table().iter().try_for_each(say) }
}

fn measure(clip: &Clip, source: &mut Source, options: &VideoOptions, is_one_of_many: bool) -> Result<Vec<FrameOverlap>> {
    source.begin(clip, is_one_of_many)?;
    let mut saved = Saved::begin(clip, options.save.as_deref(), is_one_of_many)?;
    let frames = &clip.frames[..clip.frames.len().min(options.limit.unwrap_or(usize::MAX))];
    let bar = progress::bar(frames.len() as u64, "evaluating");
    let mut overlaps = Vec::with_capacity(frames.len());
    for (number, &frame) in frames.iter().enumerate() {
        let ground_truth = clip.map(frame)?;
        let image = clip.dataset.image(frame);
        let mut picture = read_annotated(&image.path, options.max_pixels, Exif::Apply, (ground_truth.width, ground_truth.height))?;
        picture.sequence = number as u64 + 1;
        picture.captured_ns = ((number as f64 + 1.0) * 1e9 / options.fps) as u64;
        let prediction = source.next(&picture, &image.name).with_context(|| format!("{}: {}", clip.name, image.name))?;
        if (prediction.width, prediction.height) != (ground_truth.width, ground_truth.height) {
            bail!("{}: {}: the prediction is of another size than the ground truth", clip.name, image.name);
        }
        overlaps.push(FrameOverlap::of(&ground_truth, &prediction));
        if let Some(saved) = &mut saved {
            saved.add(&image.name, &prediction)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(saved) = saved {
        saved.finish(clip.dataset.classes())?;
    }
    Ok(overlaps)
}

/// The folder itself if it is a clip, else those in it that are, by name.
fn folders(directory: &Path) -> Result<Vec<PathBuf>> {
    if directory.join("panoptic.json").is_file() {
        return Ok(vec![directory.to_owned()]);
    }
    let entries = std::fs::read_dir(directory).with_context(|| format!("{}: cannot be read", directory.display()))?;
    let mut folders = Vec::new();
    for entry in entries.take(PICTURES_MAX) {
        let path = entry.with_context(|| format!("{}: cannot be read", directory.display()))?.path();
        if path.join("panoptic.json").is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    if folders.is_empty() {
        bail!("{}: neither it nor a folder in it has a panoptic.json, so there is no clip", directory.display());
    }
    Ok(folders)
}
