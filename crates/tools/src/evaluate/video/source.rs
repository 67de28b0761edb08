//! Predictions of a clip, frame by frame: of a model through the daemon's pipeline, or from files, with or without a tracker; and where they
//! are saved.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::{ClassLogits, Frame, Logits, Segment, Task, Unpublished};
use eomt_edge_core::pipeline::{FixedClock, NullSink, Pipeline, SegmentedFrame, TemporalStage};
use eomt_edge_core::segment::PostProcessConfig;
use eomt_edge_core::track::{TrackConfig, TrackIds, Tracker};
use eomt_edge_host::model_file::{self, Compute};
use eomt_edge_host::output::usage;
use serde_json::json;

use super::iou_tracker::IouTracker;
use super::{Clip, TrackerKind, VideoOptions, things};
use crate::datasets::labels::{Class, PanopticMap, PanopticSegment};
use crate::evaluate::Predictions;
use crate::evaluate::matching::match_labels;
use crate::panoptic_folder::PanopticFolder;

/// Where predictions come from.
pub enum Source {
    Model(Box<OfModel>),
    Files(Box<OfFiles>),
}

pub struct OfModel {
    pipeline: Pipeline,
    sink: NullSink,
    /// Class of each label.
    classes: Vec<Option<usize>>,
    kind: TrackerKind,
    memory_ns: u64,
}

pub struct OfFiles {
    path: PathBuf,
    by: crate::evaluate::MatchBy,
    classes: Vec<Class>,
    max_pixels: u64,
    kind: TrackerKind,
    memory_ns: u64,
    /// Of the clip.
    open: Option<Clip>,
    matched: Vec<Option<usize>>,
    by_name: HashMap<String, usize>,
    tracker: Option<Box<dyn TemporalStage>>,
}

fn tracker(kind: TrackerKind, memory_ns: u64, stuff: Vec<bool>) -> Option<Box<dyn TemporalStage>> {
    match kind {
        TrackerKind::Lasting => Some(Box::new(Tracker::new(TrackConfig { memory_ns, stuff }, TrackIds::default()))),
        TrackerKind::Iou => Some(Box::new(IouTracker::default())),
        TrackerKind::None => None,
    }
}

impl Source {
    pub fn open(options: &VideoOptions, classes: &[Class]) -> Result<Source> {
        let memory_ns = (options.memory * 1e9) as u64;
        match &options.predictions {
            Predictions::Models(paths) => {
                let [path] = &paths[..] else { return usage("--video scores one model") };
                let compute = Compute::threads(options.threads).with_normalization(options.normalization);
                let compute = compute.with_bf16(options.bf16).with_merging(options.merging).with_reuse(options.reuse);
                let model = model_file::load_checked(path, &compute)?;
                let metadata = model.metadata();
                let matched = match_labels(&metadata.labels, classes, options.match_by, &path.display().to_string())?;
                let [score, mask, overlap] = options.thresholds;
                let thresholds = metadata.thresholds.with(score, mask, overlap);
                let config = PostProcessConfig { task: Task::Panoptic, thresholds, ..PostProcessConfig::default() };
                let config = config.with_stuff(&metadata.stuff_classes);
                let pipeline = Pipeline::new(model, config);
                let kind = options.tracker.unwrap_or(TrackerKind::Lasting);
                Ok(Source::Model(Box::new(OfModel { pipeline, sink: NullSink::default(), classes: matched, kind, memory_ns })))
            }
            Predictions::Files { path, .. } => Ok(Source::Files(Box::new(OfFiles {
                path: path.clone(),
                by: options.match_by,
                classes: classes.to_vec(),
                max_pixels: options.max_pixels,
                kind: options.tracker.unwrap_or(TrackerKind::None),
                memory_ns,
                open: None,
                matched: Vec::new(),
                by_name: HashMap::new(),
                tracker: None,
            }))),
        }
    }

    /// Another clip comes.
    pub fn begin(&mut self, clip: &Clip, is_one_of_many: bool) -> Result<()> {
        match self {
            Source::Model(model) => {
                let stage = tracker(model.kind, model.memory_ns, model.pipeline.post_process().stuff.clone());
                model.pipeline.set_temporal_stage(stage);
                model.pipeline.reset();
                Ok(())
            }
            Source::Files(files) => files.begin(clip, is_one_of_many),
        }
    }

    /// What is found on the next frame; ids are those that last.
    pub fn next(&mut self, frame: &Frame, name: &str) -> Result<PanopticMap> {
        match self {
            Source::Model(model) => model.next(frame),
            Source::Files(files) => files.next(frame, name),
        }
    }
}

/// The map of ids and a table; `class`: place of a row's class, `None` where it does not count.
fn map(frame: &Frame, ids: &[u16], table: &[Segment], class: impl Fn(&Segment) -> Option<usize>) -> PanopticMap {
    let largest = table.iter().map(|row| usize::from(row.id)).max().unwrap_or(0);
    let mut id_of = vec![0; largest + 1];
    let mut segments: Vec<PanopticSegment> = Vec::new();
    for row in table {
        let Some(class) = class(row) else { continue };
        let id = if row.track_id > 0 { row.track_id } else { u32::from(row.id) };
        id_of[usize::from(row.id)] = id;
        if !segments.iter().any(|segment| segment.id == id) {
            segments.push(PanopticSegment { id, class, area: u64::MAX, crowd: false, score: Some(row.score) });
        }
    }
    let ids = ids.iter().map(|id| id_of.get(usize::from(*id)).copied().unwrap_or(0)).collect();
    PanopticMap { width: frame.width, height: frame.height, ids, segments }
}

impl OfModel {
    fn next(&mut self, frame: &Frame) -> Result<PanopticMap> {
        self.pipeline.process(frame, Unpublished::default(), &mut self.sink, &FixedClock(0))?;
        Ok(map(frame, &self.sink.ids, &self.sink.last.table, |row| self.classes[usize::from(row.category_id)]))
    }
}

impl OfFiles {
    fn begin(&mut self, clip: &Clip, is_one_of_many: bool) -> Result<()> {
        let folder = if is_one_of_many { self.path.join(&clip.name) } else { self.path.clone() };
        let found = Clip::open(&folder, &clip.directory.join("images"), self.max_pixels)?;
        let names: Vec<String> = found.dataset.classes().iter().map(|class| class.name.clone()).collect();
        self.matched = match_labels(&names, &self.classes, self.by, &folder.display().to_string())?;
        self.by_name = found.frames.iter().map(|frame| (found.dataset.image(*frame).name.clone(), *frame)).collect();
        self.tracker = tracker(self.kind, self.memory_ns, things(&self.classes).iter().map(|is_thing| !is_thing).collect());
        self.open = Some(found);
        Ok(())
    }

    fn next(&mut self, frame: &Frame, name: &str) -> Result<PanopticMap> {
        let open = self.open.as_ref().context("no clip is open")?;
        let place = self.by_name.get(name).with_context(|| format!("{}: there is no prediction of it", open.directory.display()))?;
        let mut found = open.map(*place)?;
        found.segments.retain(|segment| self.matched[segment.class].is_some());
        found.segments.iter_mut().for_each(|segment| segment.class = self.matched[segment.class].unwrap_or(0));
        let Some(stage) = &mut self.tracker else { return Ok(found) };
        if found.ids.len() != frame.width as usize * frame.height as usize {
            bail!("the prediction is of another size than the picture");
        }
        let (mut ids, mut table) = numbered(&found);
        // no query: a segment is of its class alone
        let class = ClassLogits { queries: 0, classes: self.classes.len() + 1, values: Vec::new() };
        let logits = Logits { class, ..Logits::default() };
        stage.update(SegmentedFrame { frame, logits: &logits, queries: &[], ids: &mut ids, table: &mut table });
        Ok(map(frame, &ids, &table, |row| Some(usize::from(row.category_id))))
    }
}

/// Segments as the pipeline gives them: numbers from 1, boxes and areas counted.
fn numbered(found: &PanopticMap) -> (Vec<u16>, Vec<Segment>) {
    let numbers: HashMap<u32, u16> = found.segments.iter().map(|segment| segment.id).zip(1..).collect();
    let row = |(segment, id): (&PanopticSegment, u16)| Segment {
        id,
        category_id: segment.class as u16,
        score: segment.score.unwrap_or(1.0),
        area: 0,
        bbox: [u32::MAX, u32::MAX, 0, 0],
        track_id: 0,
    };
    let mut table: Vec<Segment> = found.segments.iter().zip(1..).map(row).collect();
    let ids: Vec<u16> = found.ids.iter().map(|id| numbers.get(id).copied().unwrap_or(0)).collect();
    for (at, id) in ids.iter().enumerate().filter(|(_, id)| **id > 0) {
        let (x, y) = (at as u32 % found.width, at as u32 / found.width);
        let Segment { area, bbox: [left, top, right, bottom], .. } = &mut table[usize::from(*id) - 1];
        *area += 1;
        (*left, *top, *right, *bottom) = ((*left).min(x), (*top).min(y), (*right).max(x + 1), (*bottom).max(y + 1));
    }
    table.retain(|row| row.area > 0);
    for Segment { bbox, .. } in &mut table {
        let [left, top, right, bottom] = *bbox;
        *bbox = [left, top, right - left, bottom - top];
    }
    (ids, table)
}

/// Predictions of a clip on their way into a folder of the same layout.
pub struct Saved {
    folder: PanopticFolder,
    classes: Vec<u64>,
}

impl Saved {
    pub fn begin(clip: &Clip, save: Option<&Path>, is_one_of_many: bool) -> Result<Option<Saved>> {
        let Some(save) = save else { return Ok(None) };
        let folder = if is_one_of_many { save.join(&clip.name) } else { save.to_owned() };
        let folder = PanopticFolder::begin(&folder, "clip")?;
        let classes = clip.dataset.classes().iter().map(|class| class.id).collect();
        Ok(Some(Saved { folder, classes }))
    }

    pub fn add(&mut self, name: &str, map: &PanopticMap) -> Result<()> {
        let mut areas: HashMap<u32, u64> = HashMap::new();
        map.ids.iter().for_each(|id| *areas.entry(*id).or_default() += 1);
        let seen = map.segments.iter().filter_map(|segment| {
            let area = areas.get(&segment.id)?;
            Some(
                json!({ "id": segment.id, "category_id": self.classes[segment.class], "iscrowd": 0, "area": area, "score": segment.score }),
            )
        });
        self.folder.add(name, (map.width, map.height), map.ids.iter().copied(), seen.collect())
    }

    pub fn finish(self, classes: &[Class]) -> Result<()> {
        let category = |class: &Class| json!({ "id": class.id, "name": class.name, "isthing": u8::from(class.is_thing != Some(false)) });
        self.folder.finish(classes.iter().map(category).collect())
    }
}
