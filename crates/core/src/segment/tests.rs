//! Properties of segmentation that need no reference; those against transformers are in `tests/processing.rs`.

use super::{PostProcessConfig, Segmenter, survivors};
use crate::data::{ClassLogits, Geometry, Logits, Segments, Task, Thresholds};
use crate::kernels::arch::Isa;
use crate::kernels::bilinear::{TILE, TILE_COLUMNS, TILE_ROWS};
use crate::kernels::math::sigmoid;
use crate::kernels::suite;

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

/// Logits like a network's: overlapping blobs, confident and hopeless classes, queries without an object.
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
            let config = PostProcessConfig { task, thresholds, whole_masks: true, stuff: vec![round % 2 == 0; 2] };
            let mut kept = Vec::new();
            survivors(&logits.class, &config, &mut kept);
            pruned_away += queries - kept.len();
            let whole = Segmenter::new(config.clone()).segments(&logits, &geometry);
            let pruned = Segmenter::new(config).segments(&keep(&logits, kept), &geometry);
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
            let config = PostProcessConfig { task, thresholds, ..PostProcessConfig::default() }.with_stuff(&[1, 3]);
            let Segments { ids, table, width, .. } = Segmenter::new(config).segments(&logits, &geometry);
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
    let config = PostProcessConfig { thresholds: Thresholds { score: 0.2, mask: 0.5, overlap: 0.1 }, ..PostProcessConfig::default() };
    let mut reused = Segmenter::new(config.clone());
    for (height, width, frame) in [(8, 8, (40, 30)), (4, 12, (9, 90)), (8, 8, (40, 30)), (2, 2, (1, 1))] {
        let logits = random_logits(&mut random, 9, 4, height, width);
        let geometry = Geometry::fit(frame, (4 * height, 4 * width));
        assert_eq!(reused.segments(&logits, &geometry), Segmenter::new(config.clone()).segments(&logits, &geometry));
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
    let segments = Segmenter::new(PostProcessConfig::default()).segments(&logits, &Geometry::stretch((1, 16), (1, 16)));
    assert_eq!(segments.table.iter().map(|row| row.area).collect::<Vec<_>>(), [8, 2]);
}

#[test]
fn nothing_and_nonsense_give_no_segments() {
    let class = ClassLogits { queries: 2, classes: 3, values: vec![0.0, 0.0, 9.0, f32::NAN, f32::NAN, f32::NAN] };
    let logits = Logits { class, kept: vec![0, 1], height: 2, width: 2, masks: vec![f32::NAN; 8] };
    let geometry = Geometry::fit((5, 5), (8, 8));
    for task in [Task::Panoptic, Task::Instance] {
        let config = PostProcessConfig { task, ..PostProcessConfig::default() };
        let segments = Segmenter::new(config).segments(&logits, &geometry);
        assert!(segments.table.is_empty() && segments.ids.iter().all(|&id| id == 0), "{task}");
    }
}

/// Panoptic ids by the definition: every candidate at every pixel, no bounds.
fn ids_by_definition(logits: &Logits, config: &PostProcessConfig, geometry: &Geometry) -> Vec<u16> {
    let (mut upsampler, threshold) = (super::enlarge((logits.height, logits.width), geometry), config.thresholds.mask as f32);
    let (height, width) = upsampler.size();
    let ((bands, stripes), mut tile) = (upsampler.tiles(), [0.0; TILE]);
    let (mut best, mut winner) = (vec![f32::NEG_INFINITY; height * width], vec![(0, false); height * width]);
    let mut own = vec![0; logits.kept.len()];
    let mut found = Vec::new();
    for (index, &query) in logits.kept.iter().enumerate() {
        let Some((class, score)) = super::classify_query(logits.class.row(query), Task::Panoptic) else { continue };
        if score <= config.thresholds.score as f32 {
            continue;
        }
        found.push((index, class));
        for (band, stripe) in (0..bands).flat_map(|band| (0..stripes).map(move |stripe| (band, stripe))) {
            upsampler.tile(Isa::SCALAR, logits.mask(index), band, stripe, &mut tile);
            let (rows, columns) = upsampler.tile_size(band, stripe);
            for (x, y) in (0..columns).flat_map(|x| (0..rows).map(move |y| (x, y))) {
                let at = (band * TILE_ROWS + y) * width + stripe * TILE_COLUMNS + x;
                let probability = sigmoid(tile[x * TILE_ROWS + y]);
                own[index] += u32::from(probability >= threshold);
                if score * probability > best[at] {
                    (best[at], winner[at]) = (score * probability, (index + 1, probability >= threshold));
                }
            }
        }
    }
    let (mut segment_of, mut stuff, mut next) = (vec![0; logits.kept.len() + 1], Vec::new(), 1);
    for (index, class) in found {
        let won = winner.iter().filter(|(by, _)| *by == index + 1).count();
        let both = winner.iter().filter(|owner| **owner == (index + 1, true)).count();
        if won == 0 || own[index] == 0 || both == 0 || f64::from(won as f32 / own[index] as f32) <= config.thresholds.overlap {
            continue;
        }
        let seen = stuff.iter().find(|(known, _)| *known == class).map(|(_, id)| *id);
        segment_of[index + 1] = seen.unwrap_or(next);
        if seen.is_none() {
            stuff.extend(config.is_stuff(class).then_some((class, next)));
            next += 1;
        }
    }
    winner.iter().map(|(by, reaches)| if *reaches { segment_of[*by] } else { 0 }).collect()
}

#[test]
fn bounds_decide_as_pixels_do() {
    let mut random = Random(0xB0B);
    let mut segments = 0;
    for round in 0..150 {
        let (queries, classes) = (1 + random.below(12), 2 + random.below(6));
        let (height, width) = (1 + random.below(30), 1 + random.below(30));
        let mut logits = random_logits(&mut random, queries, classes, height, width);
        let (scale, shift) = ([0.1, 1.0, 30.0][round % 3], [0.0, -3.0, 60.0][round / 3 % 3]);
        logits.masks.iter_mut().for_each(|value| *value = *value * scale + shift);
        if round % 10 == 0 {
            let at = random.below(logits.masks.len());
            logits.masks[at] = [f32::NAN, f32::INFINITY][round / 10 % 2];
        }
        let geometry = Geometry::fit((1 + random.below(120), 1 + random.below(120)), (4 * height, 4 * width));
        let thresholds = Thresholds { score: 0.3, mask: [0.5, 0.0, 0.9, 1.0][round % 4], overlap: random.below(90) as f64 / 100.0 };
        let config = PostProcessConfig { thresholds, stuff: vec![true; 2], ..PostProcessConfig::default() };
        let ours = Segmenter::new(config.clone()).segments(&logits, &geometry);
        assert_eq!(ours.ids, ids_by_definition(&logits, &config, &geometry), "round {round}");
        segments += ours.table.len();
    }
    assert!(segments > 100, "there is something to decide: {segments}");
}

#[test]
fn every_instruction_set_gives_the_same_segments() {
    let mut random = Random(99);
    for _ in 0..10 {
        let logits = random_logits(&mut random, 30, 19, 20, 20);
        let geometry = Geometry::fit((75, 111), (80, 80));
        for task in [Task::Panoptic, Task::Instance, Task::Semantic] {
            let config =
                PostProcessConfig { task, thresholds: Thresholds { score: 0.2, mask: 0.5, overlap: 0.1 }, ..PostProcessConfig::default() };
            let on = |isa: Isa| Segmenter::new(config.clone()).with_isa(isa).segments(&logits, &geometry);
            let expected = on(Isa::SCALAR);
            suite::each_isa(|isa| assert_eq!(on(isa), expected, "{task} on {}", isa.name()));
        }
    }
}
