//! Backbones without heads: their tokens against transformers', and what training makes of them.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use eomt_edge_tools::checkpoint::{self, Headless, read_headless};
use safetensors::SafeTensors;

use super::heads as heads_of;
use super::*;
use crate::network::{Forward, MaskChance};
use crate::parameters::{Parameters, shapes};
use crate::resize::resize;
use crate::tests::{assert_loss_falls, bytes, data, floats, folder, patches};
use crate::{Heads, LossOptions, Pictures, RateOptions, Start, TrainOptions, train};

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/backbones").join(name)
}

fn backbone(name: &str) -> Headless {
    read_headless(&path(name)).unwrap().unwrap_or_else(|| panic!("{name} is a backbone"))
}

/// Never masks.
struct Never;

impl MaskChance for Never {
    fn masked(&mut self, _: usize) -> Option<Vec<bool>> {
        None
    }
}

/// Tokens behind the last norm, of the class, the registers and the patches.
fn tokens(sizes: &Sizes, weights: Vec<(String, Array)>, pixels: &[f32], shape: &[usize]) -> Vec<f32> {
    let input = patches(pixels, shape, sizes.patch);
    let input = Tensor::from_vec(input, (shape[0], sizes.grid().pow(2), 3 * sizes.patch.pow(2)), &Device::Cpu).unwrap();
    let parameters = Parameters::new(weights).unwrap();
    let tokens = Forward { sizes, parameters: &parameters, workspace: &Arc::default() }.encode(&input).unwrap();
    tokens.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_near(ours: &[f32], theirs: &[f32], what: &str) {
    let apart = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    let largest = theirs.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    assert_eq!(ours.len(), theirs.len(), "{what}");
    assert!(apart < 1e-4 * largest, "{what}: {apart} apart of {largest}"); // f32 sums in another order
}

/// At the size of the configuration, and at another one, for which positions are resampled (DINOv2) or follow from the grid (DINOv3).
#[test]
fn tokens_are_those_of_transformers() {
    for name in ["dinov2", "dinov2-registers", "dinov3", "meta-dinov3.pth"] {
        let bytes = data(&format!("backbones/{}/expected.safetensors", if name.ends_with("pth") { "dinov3" } else { name }));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for prefix in ["", "other."] {
            let headless = backbone(name);
            let (mut sizes, mut weights) = of_backbone(&headless).unwrap();
            let (shape, pixels) = floats(&file, &format!("{prefix}pixel_values"));
            let resampling = match headless.backbone.position {
                Position::Learned { resampling, .. } => Some(resampling),
                Position::Rotary { .. } => None,
            };
            let wanted = (sizes.patch, shape[3]);
            resize(&mut sizes, &mut weights, wanted, resampling).unwrap();
            let (_, theirs) = floats(&file, &format!("{prefix}last_hidden_state"));
            assert_near(&tokens(&sizes, weights, &pixels, &shape), &theirs, &format!("{name} {prefix}"));
        }
    }
}

/// Meta's state is the same network as transformers', but for the mean and deviation that only the folder tells, and the size of its pictures.
#[test]
fn both_layouts_hold_the_same_backbone() {
    let (transformers, mut meta) = (backbone("dinov3"), backbone("meta-dinov3.pth"));
    assert_eq!(transformers.image_mean, [0.43, 0.411, 0.296]);
    assert_eq!((meta.image_mean, meta.backbone.image_size), ([0.485, 0.456, 0.406], [224, 224]));
    meta.backbone.image_size = transformers.backbone.image_size;
    assert_eq!(meta.norm, transformers.norm);
    for (meta, own) in meta.backbone.blocks.iter().zip(&transformers.backbone.blocks) {
        assert_eq!(meta, own);
    }
    assert_eq!(meta.backbone.register_tokens, transformers.backbone.register_tokens);
}

/// What the heads add: every name of the network once, values as PyTorch starts such layers, others for another seed.
#[test]
fn heads_start_as_the_reference_starts_them() {
    let (encoder, weights) = of_backbone(&backbone("dinov3")).unwrap();
    let sizes = Sizes { query_blocks: 2, queries: 200, classes: 3, scale_blocks: 1, ..encoder };
    let heads = heads_of(&sizes, 1);
    let mut names: Vec<_> = weights.iter().chain(&heads).map(|(name, array)| (name.clone(), array.shape.clone())).collect();
    let mut expected = shapes(&sizes);
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    let of = |name: &str| &heads.iter().find(|(own, _)| own == name).unwrap().1.data;
    let deviation = |values: &[f32]| (values.iter().map(|x| f64::from(x * x)).sum::<f64>() / values.len() as f64).sqrt();
    assert!((deviation(of("query.weight")) - 1.0).abs() < 0.05, "nn.Embedding: normal of deviation 1");
    for (name, fan_in) in
        [("mask_head.fc1.weight", 16.0f64), ("upscale_block.block.0.conv1.weight", 64.0), ("upscale_block.block.0.conv2.weight", 9.0)]
    {
        let bound = 1.0 / fan_in.sqrt();
        assert!(of(name).iter().all(|x| f64::from(x.abs()) <= bound), "{name}");
        // a uniform distribution deviates by its bound over the root of three
        assert!((deviation(of(name)) * 3f64.sqrt() / bound - 1.0).abs() < 0.1, "{name}");
    }
    assert!(of("upscale_block.block.0.layernorm2d.weight").iter().all(|x| *x == 1.0));
    let other = heads_of(&sizes, 2);
    assert!(heads.iter().zip(&other).any(|(a, b)| a != b) && heads == heads_of(&sizes, 1));
}

fn options(name: &str, directory: &Path, steps: u64, heads: Heads) -> TrainOptions {
    let start = Start::Checkpoint { path: path(name), patch: None, image: Some(56), heads };
    let defaults = TrainOptions::new(directory.to_owned(), start, Pictures::Scenes { seed: 3 });
    let rates = RateOptions { rate: 2e-3, warmup: [2, 1], ..defaults.rates };
    TrainOptions { steps, batch: 6, rates, loss: LossOptions { points: 64, ..LossOptions::default() }, threads: 2, ..defaults }
}

/// From each kind: the loss falls, and the checkpoint is a whole one of that kind that `convert` reads; its last predictions come through the pre-trained
/// encoder.
#[test]
fn a_backbone_learns_and_is_a_checkpoint_then() {
    for (name, rotary) in [("dinov2", false), ("dinov2-registers", false), ("dinov3", true)] {
        let directory = folder(&format!("backbone-{name}"));
        let heads = Heads { queries: Some(9), query_blocks: Some(2) };
        train(&options(name, &directory, 40, heads)).unwrap();
        assert_loss_falls(&directory, 40);
        let read = checkpoint::read(&directory, &checkpoint::Options::default()).unwrap();
        let (sizes, weights) = of_network(&read.network).unwrap();
        assert_eq!((sizes.queries, sizes.query_blocks, sizes.scale_blocks, sizes.is_rotary()), (9, 2, 1, rotary), "{name}");
        assert_eq!(read.labels, eomt_edge_core::scenes::LABELS);
        let config: serde_json::Value = serde_json::from_slice(&bytes(&directory, "config.json")).unwrap();
        assert!(rotary || config["mlp_ratio"] == 4, "{name}: transformers takes whole ratios only, as the backbone's own");
        let parameters = Parameters::new(weights).unwrap();
        let input = Tensor::zeros((1, sizes.grid().pow(2), 3 * sizes.patch.pow(2)), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(
            Forward { sizes: &sizes, parameters: &parameters, workspace: &Arc::default() }.run(&input, &mut Never).unwrap().len(),
            3
        );
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// Sizes of heads that are there already cannot be chosen, and a network for video needs clips.
#[test]
fn what_a_checkpoint_has_is_not_chosen_again() {
    let directory = folder("backbone-refused");
    let heads = Heads { queries: Some(9), query_blocks: None };
    let start = |path: std::path::PathBuf, heads| Start::Checkpoint { path, patch: None, image: None, heads };
    let reference = path("../reference/dinov3");
    let with = |start| TrainOptions { start, ..options("dinov3", &directory, 1, heads) };
    let said = train(&with(start(reference, heads))).unwrap_err().to_string();
    assert!(said.contains("--queries") && said.contains("has its own"), "{said}");
    let said = train(&with(start(path("../videomt/transformers"), Heads::default()))).unwrap_err().to_string();
    assert!(said.contains("--video"), "{said}");
    let said = format!("{:#}", train(&options("dinov2", &directory, 1, Heads { queries: None, query_blocks: Some(7) })).unwrap_err());
    assert!(said.contains("cannot be trained") && said.contains("last 7 of 3 blocks"), "{said}");
    assert!(!directory.exists(), "nothing was written");
}
