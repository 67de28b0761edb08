//! Labels and their differences as pictures.

use eomt_edge_core::data::{Frame, Segment};
use eomt_edge_core::overlay;

use crate::datasets::labels::{ClassMap, Instances, Labels, NO_CLASS, PanopticMap};

/// A map of segments as the overlay paints it.
struct Painting {
    ids: Vec<u16>,
    table: Vec<Segment>,
}

/// Objects are painted from this score on.
const PAINTED_SCORE_MIN: f64 = 0.5;

/// The frame with coloured segments and their names.
pub fn overlay(frame: &Frame, labels: &Labels, names: &[String]) -> Vec<u8> {
    let mut painting = match labels {
        Labels::Panoptic(map) => of_panoptic(map),
        Labels::Semantic(map) => of_classes(map),
        Labels::Instances(instances) => of_instances(instances),
    };
    painting.measure(frame.width as usize);
    let mut rgb = frame.data.clone();
    overlay::paint(&mut rgb, frame.width as usize, &painting.ids, &painting.table, names);
    rgb
}

/// The frame in dark grey, with `wrong` pixels in red.
pub fn differences(frame: &Frame, wrong: &[bool]) -> Vec<u8> {
    let pixel = |(rgb, wrong): (&[u8], &bool)| {
        let grey = (rgb.iter().map(|value| u16::from(*value)).sum::<u16>() / 6) as u8;
        if *wrong { [255, grey / 2, grey / 2] } else { [grey; 3] }
    };
    frame.data.chunks_exact(3).zip(wrong).flat_map(pixel).collect()
}

/// Scores as colours: black at `low`, then red and yellow, white at `high`.
pub fn heat(scores: &[f32], low: f32, high: f32) -> Vec<u8> {
    let span = (high - low).max(f32::MIN_POSITIVE);
    let pixel = |score: &f32| {
        let heat = 3.0 * ((score - low) / span).clamp(0.0, 1.0);
        [0.0, 1.0, 2.0].map(|cold| (255.0 * (heat - cold).clamp(0.0, 1.0)) as u8)
    };
    scores.iter().flat_map(pixel).collect()
}

/// Without a score only the name is written.
fn row(index: usize, class: usize, score: Option<f32>) -> Segment {
    Segment { id: index as u16 + 1, category_id: class as u16, score: score.unwrap_or(f32::NAN), area: 0, bbox: [0; 4], track_id: 0 }
}

fn of_panoptic(map: &PanopticMap) -> Painting {
    let table: Vec<Segment> = map.segments.iter().enumerate().map(|(index, segment)| row(index, segment.class, segment.score)).collect();
    let place = |id: u32| map.segments.iter().position(|segment| segment.id == id).map_or(0, |place| place as u16 + 1);
    let mut ids = Vec::with_capacity(map.ids.len());
    for run in map.ids.chunk_by(|a, b| a == b) {
        ids.extend(std::iter::repeat_n(place(run[0]), run.len()));
    }
    Painting { ids, table }
}

fn of_classes(map: &ClassMap) -> Painting {
    let mut seen: Vec<u16> = map.classes.iter().copied().filter(|class| *class != NO_CLASS).collect();
    seen.sort_unstable();
    seen.dedup();
    let place = |class: &u16| seen.binary_search(class).map_or(0, |place| place as u16 + 1);
    let ids = map.classes.iter().map(place).collect();
    Painting { ids, table: seen.iter().enumerate().map(|(index, class)| row(index, usize::from(*class), None)).collect() }
}

/// The best on top.
fn of_instances(instances: &Instances) -> Painting {
    let mut list: Vec<_> = instances.list.iter().filter(|instance| instance.score >= PAINTED_SCORE_MIN).collect();
    list.sort_by(|a, b| a.score.total_cmp(&b.score));
    let mut ids = vec![0; instances.width as usize * instances.height as usize];
    for (index, instance) in list.iter().enumerate() {
        instance.each_pixel(|pixel| ids[pixel] = index as u16 + 1);
    }
    Painting {
        ids,
        table: list.iter().enumerate().map(|(index, instance)| row(index, instance.class, Some(instance.score as f32))).collect(),
    }
}

impl Painting {
    /// Areas and boxes, by which names are placed.
    fn measure(&mut self, width: usize) {
        let mut corners = vec![[u32::MAX, u32::MAX, 0, 0]; self.table.len()];
        for (index, id) in self.ids.iter().enumerate().filter(|(_, id)| **id > 0) {
            let (x, y) = ((index % width) as u32, (index / width) as u32);
            let place = usize::from(*id) - 1;
            self.table[place].area += 1;
            let [left, top, right, bottom] = corners[place];
            corners[place] = [left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)];
        }
        for (row, [left, top, right, bottom]) in self.table.iter_mut().zip(corners).filter(|(row, _)| row.area > 0) {
            row.bbox = [left, top, right - left, bottom - top];
        }
        self.table.retain(|row| row.area > 0);
    }
}
