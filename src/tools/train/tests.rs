//! The loss and the network against transformers; runs against each other.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::loss::{Batch, Points, Prediction, Purpose, Targets, image_loss};
use super::*;

fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(file: &SafeTensors, name: &str) -> (Vec<usize>, Vec<f32>) {
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
