//! Clips against transformers' modules; runs against each other.

use std::path::Path;
use std::sync::Arc;

use eomt_edge_core::scenes::Rng;
use eomt_edge_tools::checkpoint;
use eomt_edge_tools::clip::{ClipOptions, clip};

use super::*;
use crate::tests::{assert_loss_falls, bytes, data, folder, patches, tiny, wave};
use crate::{Heads, LossOptions, Pictures, Start, TrainOptions, adopt, train};

/// The fractions of i times the golden ratio, as `tests/data/train/make_clips.py` draws them.
struct Sequence(u64);

impl Points for Sequence {
    fn draw(&mut self, _: Purpose, count: usize) -> Vec<[f32; 2]> {
        let mut next = || {
            self.0 += 1;
            (self.0 as f64 * 0.618_033_988_749_894_9).fract() as f32
        };
        (0..count).map(|_| [next(), next()]).collect()
    }
}

/// The objects of the file in each frame: boxes that move to the right.
fn targets(objects: &[serde_json::Value], frames: usize, side: usize) -> Vec<Targets> {
    let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
    let classes: Vec<usize> = objects.iter().map(|object| number(&object[0])).collect();
    let frame = |frame: usize| {
        let mut masks = vec![0.0f32; objects.len() * side * side];
        for (place, object) in objects.iter().enumerate() {
            let present: Vec<usize> = object[1].as_array().unwrap().iter().map(number).collect();
            let left = number(&object[2]) + 2 * frame.saturating_sub(present[0]);
            let box_of = (4 + 3 * place..12 + 3 * place).flat_map(|y| (left..(left + 10).min(side)).map(move |x| (x, y)));
            if present.contains(&frame) {
                box_of.for_each(|(x, y)| masks[(place * side + y) * side + x] = 1.0);
            }
        }
        Targets { classes: classes.clone(), plane: [side, side], masks }
    };
    (0..frames).map(frame).collect()
}

/// Assignments, terms, and the gradients of all weights through four frames.
#[test]
fn loss_and_gradients_over_a_clip_are_those_of_transformers() {
    let expected: serde_json::Value = serde_json::from_slice(&data("train/clips.json")).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/videomt/transformers");
    let checkpoint = checkpoint::read(&folder, &checkpoint::Options::default()).unwrap();
    let (sizes, weights) = adopt::of_network(&checkpoint.network).unwrap();
    let (frames, side) = (expected["frames"].as_u64().unwrap() as usize, sizes.image);
    let objects = expected["objects"].as_array().unwrap();
    let options = LossOptions { points: expected["points"].as_u64().unwrap() as usize, ..LossOptions::default() };
    let targets = targets(objects, frames, side);
    let input = patches(&wave(frames * 3 * side * side, 0.37), &[frames, 3, side, side], sizes.patch);
    let input = Tensor::from_vec(input, (frames, sizes.grid().pow(2), 3 * sizes.patch.pow(2)), &Device::Cpu).unwrap();
    let parameters = Parameters::new(weights).unwrap();
    let workspace = Arc::default();
    let places = Forward { sizes: &sizes, parameters: &parameters, workspace: &workspace }.run_clip(&input).unwrap();
    let batch = Batch::new(&vec![objects.len(); frames], sizes.queries, &options);
    let (mut points, mut total, mut surrogates) = (Sequence(0), 0.0, vec![]);
    for (logits, expected) in places.iter().zip(expected["terms"].as_array().unwrap()) {
        let mut replayed = Sequence(points.0);
        let pairs = pairs(logits, &targets, &options, sizes.mask_side(), &mut replayed);
        assert_eq!(serde_json::json!(pairs), expected["pairs"]);
        let (terms, surrogate) = place_loss(logits, &targets, batch, &options, sizes.mask_side(), &mut points).unwrap();
        for (ours, name) in [(terms.cross_entropy, "loss_cross_entropy"), (terms.mask, "loss_mask"), (terms.dice, "loss_dice")] {
            let theirs = expected[name].as_f64().unwrap();
            assert!((ours - theirs).abs() < 1e-4 * theirs, "{name}: {ours} against {theirs}");
        }
        total += terms.total(&options);
        surrogates.push(surrogate);
    }
    assert!((total / expected["total"].as_f64().unwrap() - 1.0).abs() < 1e-4, "{total}");
    let sum = Tensor::stack(&surrogates, 0).unwrap().sum_all().unwrap();
    let gradient = Gradient::of(&sum, &parameters, &workspace, total, Terms::default()).unwrap();
    let expected = expected["gradients"].as_object().unwrap();
    let most = expected.values().map(|of| of["largest"].as_f64().unwrap()).fold(0.0, f64::max);
    for ((name, _), ours) in parameters.iter().zip(&gradient.values) {
        let expected = &expected[name];
        let (step, largest) = (expected["step"].as_u64().unwrap() as usize, expected["largest"].as_f64().unwrap());
        let theirs = expected["values"].as_array().unwrap();
        assert_eq!(ours.len().div_ceil(step), theirs.len(), "{name}");
        for (ours, theirs) in ours.iter().step_by(step).zip(theirs) {
            let apart = (f64::from(*ours) - theirs.as_f64().unwrap()).abs();
            // keys' biases change nothing where positions are learned: their gradient is what rounding leaves of 0
            assert!(apart < 1e-4 * largest.max(1e-3 * most), "{name}: {ours} {theirs}, of {largest}");
        }
    }
    assert_eq!(parameters.iter().len(), expected.len());
}

fn pairs(logits: &[Logits], targets: &[Targets], options: &LossOptions, side: usize, points: &mut Sequence) -> Vec<(usize, usize)> {
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let logits: Vec<_> = logits.iter().map(|frame| (values(&frame.classes), values(&frame.masks), frame.classes.dim(1).unwrap())).collect();
    let predictions: Vec<Prediction> =
        logits.iter().map(|(classes, masks, queries)| Prediction { classes, masks, queries: *queries, plane: [side; 2] }).collect();
    match_clip(&predictions, targets, options, points)
}

/// With more objects than queries, the first ones keep theirs and the rest has none.
#[test]
fn a_query_has_one_object_in_a_clip() {
    let mut rng = Rng::new(1, 1);
    let (queries, side) = (3, 8);
    let mut random = |count: usize| (0..count).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
    let logits: Vec<_> = (0..3).map(|_| (random(queries * 3), random(queries * side * side))).collect();
    let predictions: Vec<Prediction> =
        logits.iter().map(|(classes, masks)| Prediction { classes, masks, queries, plane: [side; 2] }).collect();
    // two objects from the first frame on, three more from the second
    let frame = |shown: usize| {
        let masks = (0..5).flat_map(|object| (0..side * side).map(move |at| f32::from(u8::from(object < shown && at % 5 == object))));
        Targets { classes: vec![0, 1, 0, 1, 0], plane: [side; 2], masks: masks.collect() }
    };
    let options = LossOptions { points: 32, ..LossOptions::default() };
    let matches = match_clip(&predictions, &[frame(2), frame(5), frame(5)], &options, &mut Sequence(0));
    assert_eq!(matches.iter().map(|(query, _)| *query).collect::<Vec<_>>(), [0, 1, 2]);
    assert!([0, 1].iter().all(|object| matches.iter().any(|(_, matched)| matched == object)), "{matches:?}");
}

fn draw(directory: &Path, clips: u64, frames: u64) {
    for seed in 0..clips {
        let output = directory.join(seed.to_string());
        clip(&ClipOptions { output, frames, seed, size: (64, 48), fps: 15.0, pan: 0.3, noise: 0.0, cuts: 0 }).unwrap();
    }
}

fn options(clips: &Path, output: &Path, steps: u64, threads: usize) -> TrainOptions {
    let pictures = Pictures::Clips { directory: clips.to_owned(), frames: 3 };
    TrainOptions { pictures, batch: 3, ..tiny(output, steps, threads) }
}

/// On clips of scenes: the loss falls, one thread and two give the same weights, the checkpoint is a VidEoMT that is read, and trains on. A network for
/// single pictures becomes one.
#[test]
fn clips_are_learned_from() {
    let [clips, one, two, on, single, grown] =
        ["clips", "one", "two", "on", "single", "grown"].map(|name| folder(&format!("video-{name}")));
    draw(&clips, 3, 5);
    train(&options(&clips, &one, 30, 1)).unwrap();
    train(&options(&clips, &two, 30, 2)).unwrap();
    assert!(bytes(&one, "model.safetensors") == bytes(&two, "model.safetensors"), "one thread against two");
    assert_loss_falls(&one, 30);
    let read = |directory: &Path| checkpoint::read(directory, &checkpoint::Options::default()).unwrap();
    let before = read(&one).network.query_updater.expect("a VidEoMT");
    let from = |path: &Path| Start::Checkpoint { path: path.to_owned(), patch: None, image: None, heads: Heads::default() };
    train(&TrainOptions { start: from(&one), ..options(&clips, &on, 2, 2) }).unwrap();
    assert_ne!(read(&on).network.query_updater.expect("still one"), before);
    let pictures = Pictures::Scenes { seed: 1 };
    train(&TrainOptions { pictures, ..options(&clips, &single, 1, 2) }).unwrap();
    assert!(read(&single).network.query_updater.is_none());
    train(&TrainOptions { start: from(&single), ..options(&clips, &grown, 1, 2) }).unwrap();
    assert!(read(&grown).network.query_updater.is_some());
    let long = Pictures::Clips { directory: clips.clone(), frames: 6 };
    let said = train(&TrainOptions { pictures: long, ..options(&clips, &single, 1, 2) }).unwrap_err().to_string();
    assert!(said.contains("--frames") && said.contains("the longest has 5"), "{said}");
    for directory in [clips, one, two, on, single, grown] {
        std::fs::remove_dir_all(directory).unwrap();
    }
}
