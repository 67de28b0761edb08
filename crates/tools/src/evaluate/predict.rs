//! Predictions: of a model, through the daemon's pipeline, or from files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::{Frame, NO_SEGMENT, Segments, Task};
use eomt_edge_core::pipeline::Pipeline;
use eomt_edge_host::output::usage;
use eomt_edge_host::{bounds, files};
use hotcoco::{Rle, Segmentation};
use serde::Deserialize;

use super::matching::MatchBy;
use crate::datasets::coco::{self, Id, InstanceJson, PanopticAnnotation};
use crate::datasets::labels::{ClassMap, Instance, Instances, Labels, NO_CLASS, PanopticMap, PanopticSegment};
use crate::datasets::{self, Dataset};

/// Pairs of query and class that average precision ranks on an image, as the authors evaluate.
pub const CANDIDATES: usize = 100;

/// A model as a source of predictions.
pub struct ModelSource {
    pub pipeline: Pipeline,
    /// Class of each label.
    pub classes: Vec<Option<usize>>,
    pub windows: bool,
    /// The pictures are frames of a clip.
    pub in_order: bool,
    /// Objects with a lower score are left out.
    pub score_min: f64,
}

impl ModelSource {
    /// What the model finds on a frame, in the classes of the dataset.
    pub fn labels(&mut self, frame: &Frame, task: Task) -> Result<Labels> {
        let (width, height) = (frame.width, frame.height);
        if !self.in_order {
            self.pipeline.reset(); // the pictures of a dataset have nothing to do with each other
        }
        Ok(match task {
            Task::Panoptic => {
                let segments = self.pipeline.segments(frame)?;
                Labels::Panoptic(self.panoptic(&segments))
            }
            Task::Semantic => {
                let pipeline = &mut self.pipeline;
                let segments = if self.windows { pipeline.segments_of_windows(frame)? } else { pipeline.segments(frame)? };
                let class = |id: u16| {
                    let row = segments.table.get(usize::from(id).wrapping_sub(1))?;
                    self.classes[usize::from(row.category_id)].map(|class| class as u16)
                };
                Labels::Semantic(ClassMap {
                    width,
                    height,
                    classes: segments.ids.iter().map(|id| class(*id).unwrap_or(NO_CLASS)).collect(),
                })
            }
            Task::Instance => {
                let candidates = self.pipeline.candidates(frame, CANDIDATES)?;
                let kept = candidates.into_iter().filter(|candidate| f64::from(candidate.score) >= self.score_min);
                let instance = |candidate: eomt_edge_core::segment::Candidate| {
                    let class = self.classes[usize::from(candidate.class)]?;
                    let mask = Rle { h: height, w: width, counts: candidate.mask.counts };
                    Some(Instance { class, score: f64::from(candidate.score), mask, area: f64::from(candidate.area), crowd: false })
                };
                Labels::Instances(Instances { width, height, list: kept.filter_map(instance).collect() })
            }
        })
    }

    fn panoptic(&self, segments: &Segments) -> PanopticMap {
        let class = |category: u16| self.classes[usize::from(category)];
        let counts = |id: u16| id != NO_SEGMENT && class(segments.table[usize::from(id) - 1].category_id).is_some();
        let ids = segments.ids.iter().map(|id| if counts(*id) { u32::from(*id) } else { 0 }).collect();
        let segment = |row: &eomt_edge_core::data::Segment| {
            let class = class(row.category_id)?;
            Some(PanopticSegment { id: u32::from(row.id), class, area: u64::from(row.area), crowd: false, score: Some(row.score) })
        };
        PanopticMap { width: segments.width, height: segments.height, ids, segments: segments.table.iter().filter_map(segment).collect() }
    }
}

/// Predictions that lie in files.
pub enum FileSource {
    /// `NAME.json` and `NAME.panoptic.png` as `segment` writes them, or `NAME.png`, a class map.
    Directory { directory: PathBuf, by: MatchBy },
    /// COCO panoptic.
    Panoptic { json: PathBuf, directory: PathBuf, annotations: HashMap<Id, PanopticAnnotation> },
    /// COCO results: objects with scores.
    Results { objects: HashMap<Id, Vec<InstanceJson>> },
}

/// What `segment` writes about an image.
#[derive(Deserialize)]
struct SegmentsJson {
    width: u32,
    height: u32,
    segments: Vec<SegmentRow>,
}

#[derive(Deserialize)]
struct SegmentRow {
    id: u32,
    category_id: u64,
    label: Option<String>,
    score: f64,
    segmentation: Option<Segmentation>,
}

impl FileSource {
    pub fn open(path: &Path, json: Option<&Path>, by: MatchBy, dataset: &Dataset) -> Result<FileSource> {
        if let Some(json) = json {
            let mut annotations = HashMap::new();
            for annotation in coco::panoptic_predictions(json)? {
                annotations.insert(annotation.image_id.clone(), annotation);
            }
            return Ok(FileSource::Panoptic { json: json.to_owned(), directory: path.to_owned(), annotations });
        }
        if path.is_dir() {
            return Ok(FileSource::Directory { directory: path.to_owned(), by });
        }
        let mut objects: HashMap<Id, Vec<InstanceJson>> = HashMap::new();
        for object in coco::results(path)? {
            objects.entry(object.image_id.clone()).or_default().push(object);
        }
        if let Some(id) = objects.keys().find(|id| !dataset.images().any(|image| image.id == id.0)) {
            bail!("{}: image {} is no image of the dataset", path.display(), id.0);
        }
        Ok(FileSource::Results { objects })
    }

    /// The prediction for an image whose ground truth has `size`.
    pub fn labels(&mut self, dataset: &Dataset, index: usize, task: Task, size: (u32, u32), max_pixels: u64) -> Result<Labels> {
        let image = dataset.image(index);
        match self {
            FileSource::Panoptic { json, directory, annotations } => {
                let missing = || format!("{}: there is no prediction for image {}", json.display(), image.id);
                let annotation = annotations.get(&Id(image.id.clone())).with_context(missing)?;
                let (png, segments) = coco::segments(json, annotation.clone(), &coco::places(dataset.classes()))?;
                let png = directory.join(png);
                let map = datasets::panoptic_map(&png, segments, max_pixels)?;
                map.check(&png.display().to_string(), false)?;
                of_map(map, task)
            }
            FileSource::Results { objects } => {
                if task != Task::Instance {
                    return usage("--predictions: a file of objects is for --task instance");
                }
                let places = coco::places(dataset.classes());
                let objects = objects.get(&Id(image.id.clone())).map(Vec::as_slice).unwrap_or_default();
                let list = objects.iter().map(|object| datasets::object_of_result(object, size, &places, &image.name));
                Ok(Labels::Instances(Instances { width: size.0, height: size.1, list: list.collect::<Result<_>>()? }))
            }
            FileSource::Directory { directory, by } => of_directory(dataset, index, directory, *by, task, max_pixels),
        }
    }
}

fn of_map(map: PanopticMap, task: Task) -> Result<Labels> {
    match task {
        Task::Panoptic => Ok(Labels::Panoptic(map)),
        Task::Semantic => Ok(Labels::Semantic(map.class_map())),
        Task::Instance => usage("panoptic predictions have no scores, so they cannot be evaluated as instances"),
    }
}

fn of_directory(dataset: &Dataset, index: usize, directory: &Path, by: MatchBy, task: Task, max_pixels: u64) -> Result<Labels> {
    let stem = Path::new(&dataset.image(index).name).with_extension("");
    let flat = stem.file_name().map(PathBuf::from).unwrap_or_default();
    let find = |end: &str| {
        let named = |stem: &PathBuf| directory.join(format!("{}{end}", stem.display()));
        [&stem, &flat].into_iter().map(named).find(|path| path.is_file())
    };
    let Some(json) = find(".json") else {
        return match find(".png") {
            Some(png) if task == Task::Semantic => Ok(Labels::Semantic(dataset.predicted_classes(&png)?)),
            _ => bail!("{}: there is no prediction {}.json", directory.display(), stem.display()),
        };
    };
    let read = || serde_json::from_slice::<SegmentsJson>(&files::read(&json, &bounds::ANNOTATIONS)?).map_err(anyhow::Error::from);
    let document = read().with_context(|| format!("{}: this is not what `segment` writes", json.display()))?;
    if u64::from(document.width) * u64::from(document.height) > max_pixels {
        bail!("{}: {}x{} pixels are more than the {max_pixels} allowed", json.display(), document.width, document.height);
    }
    let class = |row: &SegmentRow| class_of(row, dataset, by, &json);
    if task == Task::Instance {
        let mut list = Vec::with_capacity(document.segments.len());
        for row in &document.segments {
            let class = class(row)?;
            let missing = || format!("{}: segment {} has no mask: `segment --task instance` writes them", json.display(), row.id);
            let mask = row.segmentation.as_ref().with_context(missing)?.to_rle(document.height, document.width);
            let mask = mask.with_context(|| format!("{}: the mask of segment {} is broken", json.display(), row.id))?;
            let area = hotcoco::mask::area(&mask) as f64;
            list.push(Instance { class, score: row.score, mask, area, crowd: false });
        }
        return Ok(Labels::Instances(Instances { width: document.width, height: document.height, list }));
    }
    let png = find(".panoptic.png").with_context(|| format!("{}: {}.panoptic.png is missing", directory.display(), stem.display()))?;
    let segment = |row: &SegmentRow| {
        Ok(PanopticSegment { id: row.id, class: class(row)?, area: u64::MAX, crowd: false, score: Some(row.score as f32) })
    };
    let segments = document.segments.iter().map(segment).collect::<Result<_>>()?;
    let map = datasets::panoptic_map(&png, segments, max_pixels)?;
    map.check(&png.display().to_string(), false)?;
    of_map(map, task)
}

/// By the label where there is one and names are to match, else by number.
fn class_of(row: &SegmentRow, dataset: &Dataset, by: MatchBy, json: &Path) -> Result<usize> {
    let classes = dataset.classes();
    let plain = |name: &str| name.trim().to_lowercase();
    let class = match (&row.label, by) {
        (Some(label), MatchBy::Name) => classes.iter().position(|class| plain(&class.name) == plain(label)),
        (None, MatchBy::Name) | (_, MatchBy::Id) => classes.iter().position(|class| class.id == row.category_id),
        (_, MatchBy::Order) => {
            let mut order: Vec<usize> = (0..classes.len()).collect();
            order.sort_by_key(|class| classes[*class].id);
            usize::try_from(row.category_id).ok().and_then(|number| order.get(number).copied())
        }
    };
    let label = row.label.as_deref().unwrap_or("without a label");
    let unknown = || format!("{}: segment {} ({label}) has the unknown category {}", json.display(), row.id, row.category_id);
    class.with_context(unknown)
}
