//! The stage with a memory: from the segments of single frames to segments that last.

use crate::data::{Frame, Logits, Segment};

/// One segmented frame on its way to the sink.
#[derive(Debug)]
pub struct SegmentedFrame<'a> {
    /// The picture, with its number and capture time (nanoseconds of CLOCK_MONOTONIC).
    pub frame: &'a Frame,
    /// What the segments were made of.
    pub logits: &'a Logits,
    /// The query that made each segment of `table`, in its order, as it comes to the stage: of merged segments the first. Empty where
    /// segments are classes (semantic).
    pub queries: &'a [u16],
    /// `[height, width]` of the frame: ids of `table`, 0 = nothing. After the stage, both must still agree.
    pub ids: &'a mut [u16],
    /// The segment table, in the order in which the reference numbers segments.
    pub table: &'a mut Vec<Segment>,
}

/// A stage between segmentation and publication that remembers earlier frames, e.g. a tracker that gives segments their
/// [`track_id`](Segment::track_id).
///
/// Sees every frame that reaches publication, in order, exactly once. The pipeline counts its time as segmentation.
/// Must allocate nothing per frame once it is warm.
pub trait TemporalStage: Send {
    /// Takes the next frame and may change its ids and its table.
    fn update(&mut self, segmented: SegmentedFrame);

    /// Forgets all earlier frames: what comes next shows another scene.
    fn reset(&mut self);
}
