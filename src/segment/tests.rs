//! Properties of segmentation that need no reference; those against transformers are in `tests/processing.rs`.

use super::{Rules, Segmenter, survivors};
use crate::data::{ClassLogits, Geometry, Logits, Segments, Task, Thresholds};

/// xorshift64: enough for test data, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In -1..1.
    fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Blobs that overlap, classes from sure to hopeless, some queries for nothing: what a network says.
fn random_logits(random: &mut Random, queries: usize, classes: usize, height: usize, width: usize) -> Logits {
    let mut class = ClassLogits { queries, classes, values: vec![0.0; queries * classes] };
    let mut masks = Vec::with_capacity(queries * height * width);
    for query in 0..queries {
        let row = &mut class.values[query * classes..(query + 1) * classes];
        row.iter_mut().for_each(|value| *value = random.signed());
        row[random.below(classes)] += 5.0 * random.signed() + 4.0;
        let (cy, cx, radius) = (random.below(height) as f32, random.below(width) as f32, 1.0 + random.below(width) as f32 / 2.0);
        for y in 0..height {
            for x in 0..width {
                let distance = ((y as f32 - cy).powi(2) + (x as f32 - cx).powi(2)).sqrt();
                masks.push((radius - distance) * 1.5 + random.signed());
            }
        }
    }
    Logits { class, kept: (0..queries).collect(), height, width, masks }
}

fn keep(all: &Logits, kept: Vec<usize>) -> Logits {
    let masks = kept.iter().flat_map(|&query| all.mask(query).to_vec()).collect();
    Logits { class: all.class.clone(), kept, height: all.height, width: all.width, masks }
}

#[test]
fn pruning_changes_nothing() {
    let mut random = Random(0x5EED);
    let mut pruned_away = 0;
    for round in 0..60 {
        let (queries, classes) = (1 + random.below(40), 2 + random.below(9));
        let (height, width) = (1 + random.below(24), 1 + random.below(24));
        let logits = random_logits(&mut random, queries, classes, height, width);
        let frame = (1 + random.below(90), 1 + random.below(90));
        let geometry = Geometry::fit(frame, (4 * height, 4 * width));
        let thresholds = Thresholds { score: random.below(100) as f64 / 100.0, mask: 0.5, overlap: random.below(100) as f64 / 100.0 };
        for task in [Task::Panoptic, Task::Instance] {
            let rules = Rules { task, thresholds, whole_masks: true, stuff: vec![round % 2 == 0; 2] };
            let mut kept = Vec::new();
            survivors(&logits.class, &rules, &mut kept);
            pruned_away += queries - kept.len();
            let whole = Segmenter::new(rules.clone()).segments(&logits, &geometry);
            let pruned = Segmenter::new(rules).segments(&keep(&logits, kept), &geometry);
            assert_eq!(whole, pruned, "round {round}, {task}");
        }
    }
    assert!(pruned_away > 500, "the property is empty unless queries are pruned: {pruned_away}");
}

#[test]
fn tables_describe_their_id_maps() {
    let mut random = Random(77);
    for _ in 0..40 {
        let logits = random_logits(&mut random, 12, 5, 10, 14);
        let geometry = Geometry::fit((33, 47), (40, 56));
        for task in [Task::Panoptic, Task::Semantic] {
            let thresholds = Thresholds { score: 0.3, mask: 0.5, overlap: 0.2 };
            let rules = Rules { task, thresholds, ..Rules::default() }.with_stuff(&[1, 3]);
            let Segments { ids, table, width, .. } = Segmenter::new(rules).segments(&logits, &geometry);
            for (index, row) in table.iter().enumerate() {
                assert_eq!(usize::from(row.id), index + 1);
                let at: Vec<(u32, u32)> =
                    (0..ids.len()).filter(|&i| ids[i] == row.id).map(|i| (i as u32 % width, i as u32 / width)).collect();
                assert_eq!(row.area as usize, at.len());
                let (left, right) = (at.iter().map(|p| p.0).min().unwrap(), at.iter().map(|p| p.0).max().unwrap());
                let (top, bottom) = (at.iter().map(|p| p.1).min().unwrap(), at.iter().map(|p| p.1).max().unwrap());
                assert_eq!(row.bbox, [left, top, right - left + 1, bottom - top + 1]);
                assert!(row.score > 0.0 && row.score <= 1.0);
            }
            assert!(ids.iter().all(|&id| usize::from(id) <= table.len()));
            let stuff = table.iter().filter(|row| task == Task::Panoptic && [1, 3].contains(&row.category_id));
            let classes: Vec<u16> = stuff.map(|row| row.category_id).collect();
            assert!(classes.len() <= 1 || classes[0] != classes[1], "stuff of a class is one segment");
        }
    }
}

#[test]
fn a_reused_segmenter_forgets_the_last_frame() {
    let mut random = Random(5);
    let rules = Rules { thresholds: Thresholds { score: 0.2, mask: 0.5, overlap: 0.1 }, ..Rules::default() };
    let mut reused = Segmenter::new(rules.clone());
    for (height, width, frame) in [(8, 8, (40, 30)), (4, 12, (9, 90)), (8, 8, (40, 30)), (2, 2, (1, 1))] {
        let logits = random_logits(&mut random, 9, 4, height, width);
        let geometry = Geometry::fit(frame, (4 * height, 4 * width));
        assert_eq!(reused.segments(&logits, &geometry), Segmenter::new(rules.clone()).segments(&logits, &geometry));
    }
}

/// A segment that wins exactly 4/5 of its mask is kept at the threshold 0.8, as the reference keeps it.
#[test]
fn a_ratio_at_the_threshold_is_kept() {
    // a mask of ten pixels in a row, and a stronger one over two of them; frame, input and masks are of one size
    let mut masks = vec![-9.0f32; 2 * 16];
    masks[..10].fill(2.0);
    masks[16 + 8..16 + 10].fill(9.0);
    let class = ClassLogits { queries: 2, classes: 3, values: vec![6.0, 0.0, 0.0, 0.0, 9.0, 0.0] };
    let logits = Logits { class, kept: vec![0, 1], height: 1, width: 16, masks };
    let segments = Segmenter::new(Rules::default()).segments(&logits, &Geometry::stretch((1, 16), (1, 16)));
    assert_eq!(segments.table.iter().map(|row| row.area).collect::<Vec<_>>(), [8, 2]);
}

#[test]
fn nothing_and_nonsense_give_no_segments() {
    let class = ClassLogits { queries: 2, classes: 3, values: vec![0.0, 0.0, 9.0, f32::NAN, f32::NAN, f32::NAN] };
    let logits = Logits { class, kept: vec![0, 1], height: 2, width: 2, masks: vec![f32::NAN; 8] };
    let geometry = Geometry::fit((5, 5), (8, 8));
    for task in [Task::Panoptic, Task::Instance] {
        let rules = Rules { task, ..Rules::default() };
        let segments = Segmenter::new(rules).segments(&logits, &geometry);
        assert!(segments.table.is_empty() && segments.ids.iter().all(|&id| id == 0), "{task}");
    }
}
