//! [`Logits`] to [`Segments`] for the three tasks.
//!
//! ```
//! use eomt_edge::data::{ClassLogits, Task};
//! use eomt_edge::segment::{Rules, survivors};
//! let class = ClassLogits { queries: 2, classes: 2, values: vec![9.0, 0.0, /* the second sees nothing: */ 0.0, 9.0] };
//! assert_eq!(survivors(&class, &Rules::default()), [0]);
//! ```
//!
//! Results equal transformers' EomtImageProcessor (`post_process_*_segmentation`), with ids from 1 and 0 for nothing.
//! Work is done row by row on enlarged masks, so no `[queries, height, width]` buffer exists at frame size.
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

use crate::data::{ClassLogits, Geometry, Logits, Segment, Segments, Task, Thresholds};
use crate::kernels::bilinear::{Axis, Upsampler};
use crate::kernels::math::softmax_max;

pub use rle::encode as encode_rle;
pub use semantic::{SemanticView, semantic_windows};

/// How logits become segments.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    pub task: Task,
    pub thresholds: Thresholds,
    /// `stuff[class]`: segments of this class are merged (panoptic only). May be shorter than the list of classes.
    pub stuff: Vec<bool>,
    /// Also give each instance's whole mask as run lengths.
    pub whole_masks: bool,
}

impl Rules {
    /// Marks the classes of `stuff_classes` as stuff.
    pub fn with_stuff(mut self, stuff_classes: &[u16]) -> Rules {
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

/// Class and class score of a query as `task` reads them; `None` when the query says "no object" (panoptic) or has no class.
fn verdict(row: &[f32], task: Task) -> Option<(usize, f32)> {
    let (_, score_of_best) = softmax_max(row)?;
    let (classes, _no_object) = row.split_at(row.len() - 1);
    let (class, logit) = crate::kernels::math::argmax(classes)?;
    match task {
        // "no object" competes; the first of equals wins, and it comes last
        Task::Panoptic => (logit >= row[row.len() - 1]).then_some((class, score_of_best)),
        Task::Instance | Task::Semantic => {
            let (best, top) = softmax_max(row)?;
            let score = if best == class { top } else { top * crate::kernels::math::exp(logit - row[best]) };
            Some((class, score))
        }
    }
}

/// Queries that can still become a segment, ascending: the others' masks need not exist.
///
/// Panoptic keeps queries whose best class is an object with a score above the threshold. An instance's score is its class score
/// times a mask score of at most 1, so a class score below the threshold decides. Semantic sums over all queries.
pub fn survivors(class: &ClassLogits, rules: &Rules) -> Vec<usize> {
    let survives = |query: &usize| match (rules.task, verdict(class.row(*query), rules.task)) {
        (Task::Semantic, _) => true,
        (_, None) => false,
        (Task::Panoptic, Some((_, score))) => score > rules.thresholds.score as f32,
        (Task::Instance, Some((_, score))) => f64::from(score) >= rules.thresholds.score,
    };
    (0..class.queries).filter(survives).collect()
}

/// Segments frames; buffers are reused from frame to frame.
#[derive(Debug, Default)]
pub struct Segmenter {
    rules: Rules,
    /// Of the geometry and mask size seen last.
    upsampler: Option<(Geometry, (usize, usize), Upsampler)>,
    scratch: Scratch,
}

/// Buffers of the three tasks.
#[derive(Debug, Default)]
struct Scratch {
    row: Vec<f32>,
    best: Vec<f32>,
    winner: Vec<u16>,
    bitmap: Vec<bool>,
    semantic: semantic::Buffers,
}

impl Segmenter {
    pub fn new(rules: Rules) -> Segmenter {
        Segmenter { rules, ..Segmenter::default() }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Writes the id map of the frame into `ids` (`[height, width]`, all of it) and returns the table, in the reference's order.
    ///
    /// `logits.kept` must hold at least the [`survivors`].
    pub fn run(&mut self, logits: &Logits, geometry: &Geometry, ids: &mut [u16]) -> Table {
        assert_eq!(ids.len(), geometry.frame.0 * geometry.frame.1);
        let Segmenter { rules, upsampler, scratch } = self;
        if rules.task == Task::Semantic {
            let view = SemanticView::padded(geometry);
            return semantic::run(&[logits], &view, &mut scratch.semantic, ids);
        }
        let source = (logits.height, logits.width);
        let fits = upsampler.as_ref().is_some_and(|(seen, size, _)| (seen, *size) == (geometry, source));
        if !fits {
            *upsampler = Some((*geometry, source, enlarge(source, geometry)));
        }
        let (_, _, upsampler) = upsampler.as_mut().expect("just set");
        match rules.task {
            Task::Panoptic => panoptic::run(logits, rules, upsampler, scratch, ids),
            Task::Instance => instance::run(logits, rules, upsampler, scratch, ids),
            Task::Semantic => unreachable!("handled above"),
        }
    }

    /// The same with an id map of its own: for tools.
    pub fn segments(&mut self, logits: &Logits, geometry: &Geometry) -> Segments {
        let (height, width) = geometry.frame;
        let mut ids = vec![0; height * width];
        let Table { rows, masks } = self.run(logits, geometry, &mut ids);
        Segments { width: width as u32, height: height as u32, ids, table: rows, masks }
    }
}

/// The segment table and, when asked for, the whole masks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    pub rows: Vec<Segment>,
    pub masks: Vec<crate::data::Rle>,
}

/// Mask size to input size, the frame's part of it to frame size.
fn enlarge(source: (usize, usize), geometry: &Geometry) -> Upsampler {
    let rows = Axis::resize_crop_resize(source.0, geometry.input.0, geometry.resized.0, geometry.frame.0);
    let columns = Axis::resize_crop_resize(source.1, geometry.input.1, geometry.resized.1, geometry.frame.1);
    Upsampler::new(source, rows, columns)
}
