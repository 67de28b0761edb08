//! The loss and the network against transformers; runs against each other.

use std::path::Path;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};

use candle_core::{Device, Tensor};

use super::loss::{Batch, Points, Prediction, Purpose, Targets, Terms, image_loss};
use super::*;
use eomt_edge_tools::checkpoint;

pub(super) fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(super) fn floats(file: &SafeTensors, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
    let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (tensor.shape().to_vec(), values)
}

fn whole(file: &SafeTensors, name: &str) -> Vec<usize> {
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), Dtype::I64, "{name}");
    tensor.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize).collect()
}

/// The draws that the reference recorded, for one image.
struct Replay {
    matching: Vec<[f32; 2]>,
    candidates: Vec<[f32; 2]>,
    rest: Vec<[f32; 2]>,
}

impl Points for Replay {
    fn draw(&mut self, purpose: Purpose, count: usize) -> Vec<[f32; 2]> {
        let points = match purpose {
            Purpose::Match => &mut self.matching,
            Purpose::Candidates => &mut self.candidates,
            Purpose::Rest => &mut self.rest,
        };
        assert_eq!(points.len(), count, "{purpose:?}");
        std::mem::take(points)
    }
}

fn points(file: &SafeTensors, index: usize) -> Vec<[f32; 2]> {
    floats(file, &format!("random.{index}")).1.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect()
}

/// transformers' EomtLoss with its recorded draws: terms, matches and gradients within 1e-4.
#[test]
fn loss_and_gradients_are_those_of_transformers() {
    let cases: serde_json::Value = serde_json::from_slice(&data("train/loss.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let bytes = data(&format!("train/{}", case["file"].as_str().unwrap()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (class_shape, classes) = floats(&file, "class_queries_logits");
        let (mask_shape, masks) = floats(&file, "masks_queries_logits");
        let (images, queries) = (class_shape[0], class_shape[1]);
        let number = |name: &str| case[name].as_f64().unwrap() as f32;
        let options = LossOptions {
            points: case["train_num_points"].as_u64().unwrap() as usize,
            oversample: number("oversample_ratio"),
            importance: number("importance_sample_ratio"),
            no_object_weight: number("no_object_weight"),
            ..LossOptions::default()
        };
        let targets: Vec<Targets> = (0..images)
            .map(|image| {
                let (shape, masks) = floats(&file, &format!("target_masks.{image}"));
                Targets { classes: whole(&file, &format!("target_labels.{image}")), plane: [shape[1], shape[2]], masks }
            })
            .collect();
        let counts: Vec<usize> = targets.iter().map(|targets| targets.classes.len()).collect();
        let batch = Batch::new(&counts, queries, &options);
        let (candidates, rest) = (points(&file, images), points(&file, images + 1));
        let mut terms = Terms::default();
        let (mut class_gradient, mut mask_gradient) = (vec![], vec![]);
        let mut first = 0;
        for (image, targets) in targets.iter().enumerate() {
            let matched = counts[image].min(queries);
            let share = |points: &[[f32; 2]], each: usize| points[first * each..(first + matched) * each].to_vec();
            let mut replay = Replay {
                matching: points(&file, image),
                candidates: share(&candidates, options.candidates()),
                rest: share(&rest, options.split()[1]),
            };
            first += matched;
            let (class_count, mask_count) = (classes.len() / images, masks.len() / images);
            let prediction = Prediction {
                classes: &classes[image * class_count..][..class_count],
                masks: &masks[image * mask_count..][..mask_count],
                queries,
                plane: [mask_shape[2], mask_shape[3]],
            };
            let (image_terms, gradients) = image_loss(&prediction, targets, batch, &options, &mut replay);
            terms.add(&image_terms);
            let expected: Vec<(usize, usize)> =
                whole(&file, &format!("match_query.{image}")).into_iter().zip(whole(&file, &format!("match_target.{image}"))).collect();
            assert_eq!(gradients.matches, expected);
            class_gradient.extend(gradients.classes);
            mask_gradient.extend(gradients.masks);
        }
        let close = |ours: f64, name: &str| {
            let theirs = case["losses"][name].as_f64().unwrap();
            assert!((ours - theirs).abs() < 1e-4 * theirs, "{name}: {ours} against {theirs}");
        };
        close(terms.cross_entropy, "loss_cross_entropy");
        close(terms.mask, "loss_mask");
        close(terms.dice, "loss_dice");
        for (name, ours) in [("class", class_gradient), ("masks", mask_gradient)] {
            let (_, theirs) = floats(&file, &format!("grad.{name}_queries_logits"));
            let largest = theirs.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            assert!(apart < 1e-4 * largest, "{name}: {apart} apart of {largest}");
        }
    }
}

/// Masks every query of the blocks whose probability is above 0.
struct Always<'a>(&'a [f32], usize);

impl network::MaskChance for Always<'_> {
    fn masked(&mut self, block: usize) -> Option<Vec<bool>> {
        (self.0[block] > 0.0).then(|| vec![true; self.1])
    }
}

/// Our graph on transformers' weights and pixel values, plain and masked, against its logits.
#[test]
fn forward_is_that_of_transformers() {
    for name in ["dinov2", "dinov2-patch8", "dinov2-masked", "dinov2-swiglu", "dinov3", "dinov3-masked"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data/reference").join(name);
        let checkpoint = checkpoint::read(&folder, &checkpoint::Options::default()).unwrap();
        let (sizes, weights) = adopt::of_network(&checkpoint.network).unwrap();
        let mut names: Vec<_> = weights.iter().map(|(name, array)| (name.clone(), array.shape.clone())).collect();
        let mut expected_names = parameters::shapes(&sizes);
        names.sort();
        expected_names.sort();
        assert_eq!(names, expected_names);
        let probabilities = adopt::mask_probabilities(&checkpoint.network);
        let bytes = data(&format!("reference/{name}/expected.safetensors"));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (shape, pixels) = floats(&file, "pixel_values");
        let images = shape[0];
        let patches = patches(&pixels, &shape, sizes.patch);
        let input = Tensor::from_vec(patches, (images, sizes.grid().pow(2), 3 * sizes.patch.pow(2)), &Device::Cpu).unwrap();
        let parameters = Parameters::new(weights).unwrap();
        let workspace = Arc::default();
        let forward = network::Forward { sizes: &sizes, parameters: &parameters, workspace: &workspace };
        let predictions = forward.run(&input, &mut Always(&probabilities, images * sizes.queries)).unwrap();
        assert_eq!(predictions.len(), sizes.query_blocks + 1);
        let last = predictions.last().unwrap();
        for (ours, name) in [(&last.classes, "class_queries_logits"), (&last.masks, "masks_queries_logits")] {
            let (_, theirs) = floats(&file, name);
            let ours: Vec<f32> = ours.flatten_all().unwrap().to_vec1().unwrap();
            let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            let largest = theirs.iter().fold(1.0f32, |most, x| most.max(x.abs()));
            assert_eq!(ours.len(), theirs.len());
            assert!(apart < 1e-4 * largest, "{name}: {apart} apart of {largest}"); // f32 sums in another order
        }
    }
}

/// The same numbers as in `tests/data/train/make_gradients.py`.
pub(super) fn wave(count: usize, step: f64) -> Vec<f32> {
    (0..count).map(|i| (step * i as f64).sin() as f32).collect()
}

/// Of every weight of networks of each kind, against transformers' own.
#[test]
fn gradients_of_all_weights_are_those_of_transformers() {
    let cases: serde_json::Value = serde_json::from_slice(&data("train/gradients.json")).unwrap();
    for (case, expected) in cases.as_object().unwrap() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data").join(case);
        let checkpoint = checkpoint::read(&folder, &checkpoint::Options::default()).unwrap();
        let (sizes, weights) = adopt::of_network(&checkpoint.network).unwrap();
        let side = sizes.image;
        let patches = patches(&wave(3 * side * side, 0.37), &[1, 3, side, side], sizes.patch);
        let input = Tensor::from_vec(patches, (1, sizes.grid().pow(2), 3 * sizes.patch.pow(2)), &Device::Cpu).unwrap();
        let parameters = Parameters::new(weights).unwrap();
        let workspace = Arc::default();
        let forward = network::Forward { sizes: &sizes, parameters: &parameters, workspace: &workspace };
        let never = vec![0.0; sizes.query_blocks];
        let predictions = forward.run(&input, &mut Always(&never, sizes.queries)).unwrap();
        let last = predictions.last().unwrap();
        let weighed = |logits: &Tensor, step: f64| {
            let factors = Tensor::from_vec(wave(logits.elem_count(), step), logits.shape(), &Device::Cpu).unwrap();
            (logits * factors).unwrap().sum_all().unwrap()
        };
        let total = (weighed(&last.classes, 0.11) + weighed(&last.masks, 0.23)).unwrap();
        let gradients = step::gradients(&parameters, &total.backward().unwrap(), &workspace).unwrap();
        let most = expected.as_object().unwrap().values().map(|of| of["largest"].as_f64().unwrap()).fold(0.0, f64::max);
        let mut checked = 0;
        for ((name, var), ours) in parameters.iter().zip(gradients) {
            let Some(expected) = expected.get(name) else {
                assert_eq!(var.elem_count(), 0, "{case}: {name}"); // registers of a network that has none
                continue;
            };
            let (step, largest) = (expected["step"].as_u64().unwrap() as usize, expected["largest"].as_f64().unwrap());
            let theirs = expected["values"].as_array().unwrap();
            assert_eq!(ours.len().div_ceil(step), theirs.len(), "{case}: {name}");
            for (ours, theirs) in ours.iter().step_by(step).zip(theirs) {
                let apart = (f64::from(*ours) - theirs.as_f64().unwrap()).abs();
                // keys' biases change nothing where positions are learned: their gradient is what rounding leaves of 0
                assert!(apart < 1e-4 * largest.max(1e-3 * most), "{case}: {name}: {ours} {theirs}, of {largest}");
            }
            checked += 1;
        }
        assert_eq!(checked, expected.as_object().unwrap().len(), "{case}");
    }
}

/// A copy of a checkpoint whose configuration names a licence.
fn licensed(path: &Path, name: &str) -> PathBuf {
    let copy = folder(&format!("licensed-{name}"));
    std::fs::create_dir_all(&copy).unwrap();
    std::fs::copy(path.join("model.safetensors"), copy.join("model.safetensors")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap();
    config["license"] = "a licence: \"of\" someone".into();
    std::fs::write(copy.join("config.json"), config.to_string()).unwrap();
    copy
}

/// Two steps from networks of each kind; the checkpoint is of the same kind, and `convert` reads it.
#[test]
fn every_kind_of_network_is_trained_and_read_again() {
    for case in ["reference/dinov2-swiglu", "reference/dinov3", "train/dinov3-gated"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data").join(case);
        let before = checkpoint::read(&path, &checkpoint::Options::default()).unwrap();
        let directory = folder(&case.replace('/', "-"));
        let path = licensed(&path, &case.replace('/', "-"));
        let start = Start::Checkpoint { path: path.clone(), patch: None, image: None, heads: Heads::default() };
        let defaults = TrainOptions::new(directory.clone(), start, Pictures::Scenes { seed: 3 });
        let loss = LossOptions { points: 64, ..LossOptions::default() };
        train(&TrainOptions { steps: 2, batch: 2, loss, threads: 2, ..defaults }).unwrap();
        let after = checkpoint::read(&directory, &checkpoint::Options::default()).unwrap();
        let kinds = |network: &checkpoint::Network| {
            let (sizes, _) = adopt::of_network(network).unwrap();
            Sizes { classes: 0, ..sizes }
        };
        assert_eq!(kinds(&before.network), kinds(&after.network), "{case}");
        assert_eq!(after.labels, eomt_edge_core::scenes::LABELS);
        let moved = before.network.queries.data.iter().zip(&after.network.queries.data).filter(|(a, b)| a != b).count();
        assert!(moved > 0, "{case}: nothing has changed");
        assert_eq!(after.licence.as_deref(), Some("a licence: \"of\" someone"), "{case}");
        std::fs::remove_dir_all(directory).unwrap();
        std::fs::remove_dir_all(path).unwrap();
    }
}

/// `[B, 3, H, W]` as `[B, N, 3 P P]`.
pub(super) fn patches(pixels: &[f32], shape: &[usize], patch: usize) -> Vec<f32> {
    let [_, channels, height, width] = shape[..] else { panic!("{shape:?}") };
    let mut patches = vec![];
    for image in pixels.chunks_exact(channels * height * width) {
        for (row, column) in (0..height / patch).flat_map(|row| (0..width / patch).map(move |column| (row, column))) {
            for (c, y) in (0..channels).flat_map(|c| (0..patch).map(move |y| (c, y))) {
                let start = (c * height + row * patch + y) * width + column * patch;
                patches.extend_from_slice(&image[start..start + patch]);
            }
        }
    }
    patches
}

/// A small run in a directory of its own.
pub(super) fn tiny(directory: &Path, steps: u64, threads: usize) -> TrainOptions {
    let sizes = Sizes {
        hidden: 24,
        heads: 2,
        blocks: 3,
        query_blocks: 2,
        queries: 9,
        classes: 0,
        registers: 2,
        patch: 8,
        image: 32,
        inner: 48,
        gated: false,
        activation: Activation::Gelu,
        positions: Positions::Learned,
        scale_blocks: 1,
        eps: 1e-6,
        video: false,
        chain: None,
    };
    let loss = LossOptions { points: 64, ..LossOptions::default() };
    let defaults = TrainOptions::new(directory.to_owned(), Start::Scratch(sizes), Pictures::Scenes { seed: 3 });
    let rates = RateOptions { rate: 2e-3, warmup: [2, 1], ..defaults.rates };
    TrainOptions { steps, batch: 6, rates, loss, save_every: 3, threads, ..defaults }
}

/// The last five of `steps` losses against the first five.
pub(super) fn assert_loss_falls(directory: &Path, steps: usize) {
    let text = String::from_utf8(bytes(directory, "curves.csv")).unwrap();
    let losses: Vec<f64> = text.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse().unwrap()).collect();
    let mean = |rows: &[f64]| rows.iter().sum::<f64>() / rows.len() as f64;
    assert_eq!(losses.len(), steps);
    assert!(mean(&losses[steps - 5..]) < 0.9 * mean(&losses[..5]), "{}: {losses:?}", directory.display());
}

pub(super) fn bytes(directory: &Path, name: &str) -> Vec<u8> {
    std::fs::read(directory.join(name)).unwrap()
}

pub(super) fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("eomt-edge-train-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

/// One thread or two; in one go, or killed between two states and resumed from the older one: the same weights and the same curve.
#[test]
fn runs_repeat_and_resume_bit_for_bit() {
    let (whole, other, cut) = (folder("whole"), folder("other"), folder("cut"));
    train(&tiny(&whole, 8, 1)).unwrap();
    train(&tiny(&other, 8, 2)).unwrap();
    // What a run leaves that dies after step 3: its state, its curves, and no checkpoint.
    let options = tiny(&cut, 8, 2);
    let supply = Supply::open(&options.pictures, options.exif, None, None).unwrap();
    let (recipe, weights) = prepare(&options, &supply, None).unwrap();
    files::make_directory(&cut).unwrap();
    let parameters = Parameters::new(weights).unwrap();
    let mut state = State { step: 0, moments: Moments::new(&parameters), parameters };
    let mut curves = Curves::open(&cut, 0).unwrap();
    let workers = Workers::new(2).unwrap();
    let order = recipe.order();
    let stepper = Stepper { recipe: &recipe, supply: &supply, order: &order, workers: &workers };
    for step in 0..5 {
        curves.push(advance(&stepper, &mut state).unwrap());
        state.step = step + 1;
        if step == 2 {
            state::save(&cut, &state, &recipe).unwrap();
        }
    }
    curves.save().unwrap(); // two rows more than the state knows
    train(&options).unwrap();
    for name in ["model.safetensors", "curves.csv", "config.json"] {
        assert!(bytes(&whole, name) == bytes(&other, name), "{name}: one thread against two");
        assert!(bytes(&whole, name) == bytes(&cut, name), "{name}: in one go against resumed");
    }
    // Another recipe in the same directory is refused, in words.
    let refused = train(&TrainOptions { seed: 9, ..tiny(&cut, 8, 2) }).unwrap_err().to_string();
    assert!(refused.contains("another seed") || refused.contains("another start"), "{refused}");
    // The checkpoint is one that `convert` reads.
    let read = checkpoint::read(&whole, &checkpoint::Options::default()).unwrap();
    assert_eq!(read.labels, eomt_edge_core::scenes::LABELS);
    for directory in [whole, other, cut] {
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// Forty steps from random weights on one repeated data order lower the loss: gradients point the right way.
#[test]
fn learning_lowers_the_loss() {
    let directory = folder("learning");
    train(&TrainOptions { save_every: 100, ..tiny(&directory, 40, 2) }).unwrap();
    assert_loss_falls(&directory, 40);
    std::fs::remove_dir_all(directory).unwrap();
}
