//! A plain tracker to compare with: boxes, intersection over union, greedy, as in Bochinski et al. (2017); lost tracks wait a second.

use eomt_edge_core::pipeline::{SegmentedFrame, TemporalStage};

/// Boxes that overlap less do not belong together: what ByteTrack and SORT use by default.
const IOU_MIN: f32 = 0.3;

const MEMORY_NS: u64 = 1_000_000_000;

struct Track {
    id: u32,
    class: u16,
    bbox: [u32; 4],
    seen_ns: u64,
}

/// Gives each segment the id of the track of its class whose last box it overlaps most.
#[derive(Default)]
pub struct IouTracker {
    tracks: Vec<Track>,
    last_id: u32,
}

fn iou(a: [u32; 4], b: [u32; 4]) -> f32 {
    let end = |b: [u32; 4], axis: usize| b[axis] + b[axis + 2];
    let side = |axis: usize| end(a, axis).min(end(b, axis)).saturating_sub(a[axis].max(b[axis]));
    let area = |b: [u32; 4]| b[2] as f32 * b[3] as f32;
    let both = side(0) as f32 * side(1) as f32;
    both / (area(a) + area(b) - both).max(1.0)
}

impl TemporalStage for IouTracker {
    fn update(&mut self, segmented: SegmentedFrame) {
        let now_ns = segmented.frame.captured_ns;
        self.tracks.retain(|track| now_ns.saturating_sub(track.seen_ns) <= MEMORY_NS);
        let mut pairs = Vec::new();
        for (row, segment) in segmented.table.iter_mut().enumerate() {
            segment.track_id = 0;
            for (place, track) in self.tracks.iter().enumerate().filter(|(_, track)| track.class == segment.category_id) {
                pairs.push((iou(track.bbox, segment.bbox), place, row));
            }
        }
        pairs.retain(|(iou, ..)| *iou >= IOU_MIN);
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut taken = vec![false; self.tracks.len()];
        for (_, place, row) in pairs {
            let segment = &mut segmented.table[row];
            if segment.track_id == 0 && !std::mem::replace(&mut taken[place], true) {
                let track = &mut self.tracks[place];
                (segment.track_id, track.bbox, track.seen_ns) = (track.id, segment.bbox, now_ns);
            }
        }
        for segment in segmented.table.iter_mut().filter(|segment| segment.track_id == 0) {
            self.last_id += 1;
            segment.track_id = self.last_id;
            self.tracks.push(Track { id: self.last_id, class: segment.category_id, bbox: segment.bbox, seen_ns: now_ns });
        }
    }

    fn reset(&mut self) {
        self.tracks.clear();
    }
}
