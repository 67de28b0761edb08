//! Post-processing: [`Logits`] to [`Segments`] for the three tasks.
//!
//! ```
//! use eomt_edge_core::data::{ClassLogits, Task};
//! use eomt_edge_core::segment::{PostProcessConfig, survivors};
//! let class = ClassLogits { queries: 2, classes: 2, values: vec![9.0, 0.0, /* the second sees nothing: */ 0.0, 9.0] };
//! let mut kept = Vec::new();
//! survivors(&class, &PostProcessConfig::default(), &mut kept);
//! assert_eq!(kept, [0]);
//! ```
//!
//! Results equal transformers' EomtImageProcessor (`post_process_*_segmentation`), with ids from 1 and 0 for nothing.
//! It works on tiles or rows of enlarged masks, so that no `[queries, height, width]` buffer exists at frame size. A tile that its bounds
//! decide is not computed. Invariants: results do not depend on the instruction set; after warm-up nothing
//! is allocated (except whole instance masks, for tools).
//!
//! **Lossless query pruning.** [`survivors`] finds the queries that can still become a segment from the class logits alone.
//! Dropping the others changes neither id map nor table: the reference drops them itself before comparing masks.
//!
//! Refuses: thresholds outside 0..=1 (checked where they enter), reading files, drawing.

mod instance;
mod panoptic;
mod rle;
mod semantic;
mod table;
#[cfg(test)]
mod tests;

use crate::data::{ClassLogits, Geometry, Logits, Rle, Segment, Segments, Task, Thresholds};
use crate::kernels::arch::Isa;
use crate::kernels::bilinear::{Axis, Upsampler};
use crate::kernels::math::{argmax, exp, softmax_max};

pub use instance::{Candidate, candidate_queries};
pub use rle::encode as encode_rle;
pub use semantic::{Anomaly, SemanticView, anomaly_map, semantic_windows};

/// How logits become segments.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PostProcessConfig {
    /// Which post-processing runs.
    pub task: Task,
    /// Of scores, masks and overlaps.
    pub thresholds: Thresholds,
    /// `stuff[class]`: segments of this class are merged (panoptic only). May be shorter than the list of classes.
    pub stuff: Vec<bool>,
    /// Also give each instance's whole mask as run lengths.
    pub whole_masks: bool,
}

impl PostProcessConfig {
    /// Marks the classes of `stuff_classes` as stuff.
    pub fn with_stuff(mut self, stuff_classes: &[u16]) -> PostProcessConfig {
        let len = stuff_classes.iter().map(|&class| usize::from(class) + 1).max().unwrap_or(0);
        self.stuff = vec![false; len];
        for &class in stuff_classes {
            self.stuff[usize::from(class)] = true;
        }
        self
    }

    fn is_stuff(&self, class: usize) -> bool {
        self.stuff.get(class).copied().unwrap_or(false)
    }
}

/// Classifies a query: its class and class score under `task`, from one row of class logits. `None` for "no object" (panoptic only) and
/// for a row without classes.
fn classify_query(row: &[f32], task: Task) -> Option<(usize, f32)> {
    let (&no_object, classes) = row.split_last()?;
    let (class, logit) = argmax(classes)?;
    match task {
        // "no object" competes; the first of equals wins, and it comes last. Most queries end here
        Task::Panoptic if logit >= no_object => Some((class, softmax_max(row)?.1)),
        Task::Panoptic => None,
        Task::Instance | Task::Semantic => {
            let (best, top) = softmax_max(row)?;
            let score = if best == class { top } else { top * exp(logit - row[best]) };
            Some((class, score))
        }
    }
}

/// Queries that can still become a segment, ascending, into `kept`: the others' masks need not exist.
///
/// Panoptic keeps queries whose best class is an object with a score above the threshold. An instance's score is its class score
/// times a mask score of at most 1, so a class score below the threshold decides. Semantic sums over all queries.
pub fn survivors(class: &ClassLogits, config: &PostProcessConfig, kept: &mut Vec<usize>) {
    let score = |query: usize| classify_query(class.row(query), config.task).map(|(_, score)| score);
    let survives = |query: &usize| match config.task {
        Task::Semantic => true,
        Task::Panoptic => score(*query).is_some_and(|score| score > config.thresholds.score as f32),
        Task::Instance => score(*query).is_some_and(|score| f64::from(score) >= config.thresholds.score),
    };
    kept.clear();
    kept.extend((0..class.queries).filter(survives));
}

/// Segments frames; buffers are reused from frame to frame.
#[derive(Debug)]
pub struct Segmenter {
    isa: Isa,
    config: PostProcessConfig,
    /// Of the geometry and mask size seen last.
    upsampler: Option<(Geometry, (usize, usize), Upsampler)>,
    view: Option<(Geometry, SemanticView)>,
    panoptic: panoptic::Buffers,
    instance: instance::Buffers,
    semantic: semantic::Buffers,
    table: Table,
}

impl Segmenter {
    /// Runs on the best instruction set of this CPU.
    pub fn new(config: PostProcessConfig) -> Segmenter {
        Segmenter {
            isa: Isa::detect(),
            config,
            upsampler: None,
            view: None,
            panoptic: panoptic::Buffers::default(),
            instance: instance::Buffers::default(),
            semantic: semantic::Buffers::default(),
            table: Table::default(),
        }
    }

    /// Runs on this instruction set: the same results.
    pub fn with_isa(mut self, isa: Isa) -> Segmenter {
        self.isa = isa;
        self
    }

    /// The configuration given to [`Segmenter::new`], with the thresholds that were set last.
    pub fn config(&self) -> &PostProcessConfig {
        &self.config
    }

    /// Other thresholds, from the next frame on.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.config.thresholds = thresholds;
    }

    /// Writes the id map of the frame into `ids` (`[height, width]`, all of it) and returns the table, in the reference's order.
    ///
    /// `logits.kept` must hold at least the [`survivors`].
    pub fn run(&mut self, logits: &Logits, geometry: &Geometry, ids: &mut [u16]) -> &Table {
        assert_eq!(ids.len(), geometry.frame.0 * geometry.frame.1);
        let Segmenter { isa, config, upsampler, view, panoptic, instance, semantic, table } = self;
        table.rows.clear();
        table.masks.clear();
        table.queries.clear();
        if config.task == Task::Semantic {
            if view.as_ref().is_none_or(|(seen, _)| seen != geometry) {
                *view = Some((*geometry, SemanticView::padded(geometry)));
            }
            let (_, view) = view.as_ref().expect("just set");
            semantic::run(*isa, &[logits], view, semantic, ids, table);
            return table;
        }
        let upsampler = fitting(upsampler, logits, geometry);
        match config.task {
            Task::Panoptic => panoptic::run(*isa, logits, config, upsampler, panoptic, ids, table),
            Task::Instance => instance::run(*isa, logits, config, upsampler, instance, ids, table),
            Task::Semantic => unreachable!("handled above"),
        }
        table
    }

    /// The `count` best readings of a query as a class, best class score first, to be ranked for average precision. For tools.
    ///
    /// `logits.kept` must hold at least the [`candidate_queries`].
    pub fn candidates(&mut self, logits: &Logits, geometry: &Geometry, count: usize) -> Vec<Candidate> {
        let Segmenter { isa, upsampler, instance, .. } = self;
        instance::candidates(*isa, logits, fitting(upsampler, logits, geometry), instance, count)
    }

    /// [`Segmenter::run`] with an id map of its own: for tools.
    pub fn segments(&mut self, logits: &Logits, geometry: &Geometry) -> Segments {
        let (height, width) = geometry.frame;
        let mut ids = vec![0; height * width];
        let Table { rows, masks, .. } = self.run(logits, geometry, &mut ids).clone();
        Segments { width: width as u32, height: height as u32, ids, table: rows, masks }
    }
}

/// The segment table and, when asked for, the whole masks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// One per segment, in the reference's order.
    pub rows: Vec<Segment>,
    /// One per instance where [`PostProcessConfig::whole_masks`] asks for them, else empty.
    pub masks: Vec<Rle>,
    /// The query that made each segment, of merged ones the first; empty where segments are classes (semantic).
    pub queries: Vec<u16>,
}

/// The upsampler of the last frame when it fits this one, else a new one.
fn fitting<'a>(last: &'a mut Option<(Geometry, (usize, usize), Upsampler)>, logits: &Logits, geometry: &Geometry) -> &'a mut Upsampler {
    let source = (logits.height, logits.width);
    if last.as_ref().is_none_or(|(seen, size, _)| (seen, *size) != (geometry, source)) {
        *last = Some((*geometry, source, enlarge(source, geometry)));
    }
    &mut last.as_mut().expect("just set").2
}

/// Mask size to input size, the frame's part of it to frame size.
fn enlarge(source: (usize, usize), geometry: &Geometry) -> Upsampler {
    let rows = Axis::resize_crop_resize(source.0, geometry.input.0, geometry.resized.0, geometry.frame.0);
    let columns = Axis::resize_crop_resize(source.1, geometry.input.1, geometry.resized.1, geometry.frame.1);
    Upsampler::new(source, rows, columns)
}
