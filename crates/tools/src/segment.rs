//! `segment`: segments pictures and writes an overlay, a COCO panoptic PNG and a JSON file for each. A bag stands for its pictures, which are
//! written too: they are no files otherwise.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::{Exif, Normalization, Task, TokenMerging};
use eomt_edge_core::model::{Metadata, Model};
use eomt_edge_core::overlay;
use eomt_edge_core::pipeline::Pipeline;
use eomt_edge_core::segment::PostProcessConfig;
use eomt_edge_host::bags::{self, BagName, UnpackedBag};
use eomt_edge_host::files;
use eomt_edge_host::model_file::{self, Compute};
use eomt_edge_host::output::{say, usage};
use eomt_edge_host::pictures::read_picture_as;

use super::{annotations, progress};

/// Options of [`segment`]; `None` means the model's default.
#[derive(Debug, Clone, Default)]
pub struct SegmentOptions {
    /// What to make of the logits.
    pub task: Option<Task>,
    /// Score threshold, 0 to 1.
    pub threshold: Option<f64>,
    /// Mask threshold, 0 to 1.
    pub mask_threshold: Option<f64>,
    /// Overlap threshold, 0 to 1.
    pub overlap_threshold: Option<f64>,
    /// Semantic: overlapping square windows instead of padding, as the EoMT authors evaluate.
    pub windows: bool,
    /// The pictures are the frames of one clip: a network for video is not reset between them.
    pub video: bool,
    /// Compute the masks of all queries before any is dropped, to compare with the pruned path.
    pub all_queries: bool,
    /// 0: one per core.
    pub threads: usize,
    /// How pictures are normalized for a third-party export.
    pub normalization: Normalization,
    /// Compute what the file has in f32 in bfloat16 where the CPU has such products.
    pub bf16: bool,
    /// Patch tokens that are merged away.
    pub merging: TokenMerging,
    /// Pictures with more pixels are refused.
    pub max_pixels: u64,
    /// Whether the EXIF orientation of pictures counts.
    pub exif: Exif,
}

/// The most windows of one picture: the logits of all are in memory at the same time.
const WINDOWS_MAX: u32 = 64;

/// Segments each image into `directory`: `NAME.overlay.png`, `NAME.panoptic.png`, `NAME.json`, and of a bag's pictures `NAME.png`.
///
/// # Errors
/// When the model, the directory or a picture is unusable; pictures before the bad one keep their results.
pub fn segment(model: &Path, images: &[PathBuf], directory: &Path, options: &SegmentOptions) -> Result<()> {
    let (images, bags) = unpacked(images, options.max_pixels)?;
    let names = output_names(&images)?;
    let model = model_file::load_checked(
        model,
        &Compute::threads(options.threads).with_normalization(options.normalization).with_bf16(options.bf16).with_merging(options.merging),
    )?;
    let mut pipeline = pipeline(model, options)?;
    let bar = progress::bar(images.len() as u64, "segmenting");
    for (image, name) in images.iter().zip(names) {
        let frame = read_picture_as(image, options.max_pixels, options.exif)?;
        if options.windows && frame.width.max(frame.height) / frame.width.min(frame.height) >= WINDOWS_MAX {
            bail!("{}: {}x{} pixels are so long that they take too many windows", image.display(), frame.width, frame.height);
        }
        if !options.video {
            pipeline.reset(); // the pictures have nothing to do with each other
        }
        let segments = if options.windows { pipeline.segments_of_windows(&frame) } else { pipeline.segments(&frame) };
        let segments = segments.with_context(|| format!("{}: cannot be segmented", image.display()))?;
        let Metadata { labels, name: model_name, licence, .. } = pipeline.model().metadata();
        files::make_directory(directory)?;
        if bags.iter().any(|bag| image.starts_with(bag.path())) {
            let png = files::png_rgb(&frame.data, frame.width, frame.height)?;
            files::write(&directory.join(format!("{name}.png")), &png)?;
        }
        let mut picture = frame.data;
        overlay::paint(&mut picture, frame.width as usize, &segments.ids, &segments.table, labels);
        let (width, height) = (segments.width, segments.height);
        files::write(&directory.join(format!("{name}.overlay.png")), &files::png_rgb(&picture, width, height)?)?;
        let panoptic = annotations::coco_panoptic(segments.ids.iter().copied().map(u32::from));
        files::write(&directory.join(format!("{name}.panoptic.png")), &files::png_rgb(&panoptic, width, height)?)?;
        let json = annotations::document(&segments, labels, 0, Some([model_name, licence]));
        files::write(&directory.join(format!("{name}.json")), json.as_bytes())?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let pictures = if images.len() == 1 { "1 picture".to_owned() } else { format!("{} pictures", images.len()) };
    say(format_args!("{pictures} segmented into {}", directory.display()))
}

/// The pictures with those of bags in their places, and the bags, with which their pictures go.
fn unpacked(images: &[PathBuf], max_pixels: u64) -> Result<(Vec<PathBuf>, Vec<UnpackedBag>)> {
    let (mut pictures, mut bags) = (Vec::new(), Vec::new());
    for image in images {
        match BagName::at(image) {
            None => pictures.push(image.clone()),
            Some(name) => {
                let bag = bags::unpack(&name, max_pixels, |_| true)?;
                pictures.extend(bag.names.iter().map(|name| bag.path().join(name)));
                bags.push(bag);
            }
        }
    }
    Ok((pictures, bags))
}

/// File stems; two pictures of one name would overwrite each other.
fn output_names(images: &[PathBuf]) -> Result<Vec<String>> {
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    for image in images {
        let name = image.file_stem().with_context(|| format!("{}: this is no file name", image.display()))?.to_string_lossy().into_owned();
        if !seen.insert(name.clone()) {
            return usage(format!(
                "{}: another picture is called {name} too, and their results would overwrite each other",
                image.display()
            ));
        }
        names.push(name);
    }
    Ok(names)
}

/// The model with the config that the options make.
fn pipeline(model: Model, options: &SegmentOptions) -> Result<Pipeline> {
    let metadata = model.metadata();
    let (height, width) = metadata.input_size;
    let task = options.task.unwrap_or(metadata.task);
    if options.windows && task != Task::Semantic {
        return usage("--windows is for the semantic task");
    }
    if options.windows && height != width {
        return usage(format!("--windows needs a square input, and this model takes {height}x{width}"));
    }
    let thresholds = metadata.thresholds.with(options.threshold, options.mask_threshold, options.overlap_threshold);
    let config = PostProcessConfig { task, thresholds, whole_masks: task == Task::Instance, ..PostProcessConfig::default() };
    let config = config.with_stuff(&metadata.stuff_classes);
    Ok(Pipeline::new(model, config).keep_all_queries(options.all_queries))
}
