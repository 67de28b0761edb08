//! What LightlyTrain, LibreYOLO, attr-eomt and Lightning write beside the state. What the networks compute is compared in
//! `tests/reference.rs`.

use eomt_edge_core::data::Task;

use super::*;

fn labels(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.labels.iter().map(String::as_str).collect()
}

fn case_sentence(case: &str, key: &str, value: Value) -> String {
    let scratch = Scratch::of(case);
    scratch.set("hints.json", key, value);
    sentence(&scratch.0, Some(&scratch.join("hints.json")))
}

#[test]
fn lightlytrain_numbers_classes_in_the_order_of_its_dictionaries() {
    let checkpoint = read_case("checkpoint/lightly-dinov2");
    assert_eq!(labels(&checkpoint), ["person", "car", "sky", "road"]);
    assert_eq!((checkpoint.stuff_classes.as_deref(), checkpoint.task), (Some(&[2, 3][..]), Some(Task::Panoptic)));
    assert_eq!((checkpoint.image_mean, checkpoint.image_std), ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]));
    let network = &checkpoint.network;
    assert_eq!((network.image_size, network.patch_size, network.num_blocks, network.scale_blocks.len()), ([56, 42], [14, 14], 2, 2));
    assert_eq!((network.scale_blocks[0].norm.eps, network.norm.eps, network.register_tokens.shape[0]), (1e-5, 1e-6, 4));
    assert_eq!(network.masking, [Masking::Off; 2]);
    assert!(matches!(network.position, Position::Learned { grid: [5, 5], resampling: Resampling::Antialiased, .. }));
    let checkpoint = read_case("checkpoint/lightly-dinov2-noreg");
    assert_eq!((labels(&checkpoint), checkpoint.task), (vec!["floor", "wall", "door"], Some(Task::Semantic)));
    assert!(matches!(checkpoint.network.position, Position::Learned { grid: [5, 5], resampling: Resampling::Plain { offset: 0.1 }, .. }));
}

#[test]
fn lightlytrain_tells_heads_and_base_of_dinov3_by_its_periods() {
    for (case, gated) in [("lightly-dinov3", false), ("lightly-dinov3-gated", true)] {
        let network = read_case(&format!("checkpoint/{case}")).network;
        assert_eq!((network.heads, network.position.clone()), (2, Position::Rotary { theta: 100.0 }));
        assert_eq!((network.norm.eps, network.image_size, network.register_tokens.shape[0]), (1e-5, [48, 64], 4));
        assert_eq!(matches!(network.blocks[0].mlp, Mlp::Gated { .. }), gated);
        assert!(network.blocks[0].q.bias.is_some() && network.blocks[0].k.bias.is_none());
    }
    let said = case_sentence("checkpoint/lightly-dinov3", "num_attention_heads", json!(4));
    assert_says(&said, &["'num_attention_heads' is 4", "rope_embed.periods"]);
    assert_says(&case_sentence("checkpoint/lightly-dinov3", "rope_theta", json!(50)), &["rope_embed.periods"]);
    assert_says(&case_sentence("checkpoint/lightly-dinov3", "num_blocks", json!(1)), &["num_blocks", "model_init_args.num_joint_blocks"]);
    assert_says(&case_sentence("checkpoint/lightly-dinov3", "masked_attention", json!(true)), &["never mask"]);
    assert_says(&sentence(&data("checkpoint/lightly-dinov2"), None), &["exported_best.pt", "num_attention_heads", "needed in the hints"]);
}

#[test]
fn libreyolo_names_things_and_the_others_are_stuff() {
    let checkpoint = read_case("checkpoint/libreyolo");
    assert_eq!((labels(&checkpoint), checkpoint.task), (vec!["road", "person", "sky", "car"], Some(Task::Panoptic)));
    assert_eq!((checkpoint.stuff_classes, checkpoint.network.image_size), (Some(vec![0, 2]), [48, 48]));
    assert_eq!(checkpoint.network.masking, [Masking::Own, Masking::Previous]);
    let said = case_sentence("checkpoint/libreyolo", "stuff_classes", json!([0]));
    assert_says(&said, &["'stuff_classes' is [0]", "thing_class_ids"]);
    assert_says(&case_sentence("checkpoint/libreyolo", "task", json!("semantic")), &["'task'", "Panoptic"]);
}

#[test]
fn attr_eomt_is_read_with_its_averaged_weights_and_without_its_attributes() {
    let checkpoint = read_case("checkpoint/attr-eomt");
    assert_eq!((labels(&checkpoint), checkpoint.task), (vec!["cup", "plate", "fork"], Some(Task::Instance)));
    assert_eq!((checkpoint.image_mean, checkpoint.image_std), ([0.5; 3], [0.25; 3]));
    assert!(matches!(checkpoint.network.position, Position::Learned { resampling: Resampling::Plain { offset: 0.0 }, .. }));
    let warnings = checkpoint.warnings.join("; ");
    assert_says(&warnings, &["'model'", "'ema.module'", "aux_heads", "attributes"]);
    let scratch = Scratch::of("checkpoint/attr-eomt");
    scratch.set("hints.json", "state", json!("model"));
    let plain = read(&scratch.0, &Options { hints: scratch.join("hints.json").to_str(), base: None }).unwrap();
    assert_ne!(plain.network, checkpoint.network);
}

#[test]
fn lightning_says_size_stuff_and_heads_in_its_hyperparameters() {
    let checkpoint = read_case("checkpoint/lightning");
    let network = &checkpoint.network;
    assert_eq!((network.image_size, network.heads, network.num_blocks), ([48, 64], 3, 2));
    assert_eq!((checkpoint.stuff_classes, checkpoint.task), (Some(vec![1, 3]), Some(Task::Panoptic)));
    // The probabilities are 1, but masks were never enabled.
    assert_eq!(network.masking, [Masking::Off; 2]);
    for (key, value) in
        [("image_size", json!(64)), ("stuff_classes", json!([2])), ("num_attention_heads", json!(6)), ("num_queries", json!(5))]
    {
        assert_says(&case_sentence("checkpoint/lightning", key, value), &[&format!("'{key}'"), "hyper_parameters."]);
    }
}

#[test]
fn a_base_is_for_deltas_only() {
    let base = data("checkpoint/upstream-dinov3-delta/base");
    for case in ["upstream-dinov3-whole", "lightly-dinov3", "libreyolo", "attr-eomt", "lightning", "hf-dinov3-gated"] {
        let dir = data(&format!("checkpoint/{case}"));
        let hints = dir.join("hints.json");
        let hints = hints.is_file().then(|| hints.to_str().unwrap().to_string());
        let said = read(&dir, &Options { hints: hints.as_deref(), base: Some(&base) }).unwrap_err().to_string();
        assert_says(&said, &[case, "it is a whole checkpoint", "--base"]);
    }
    let whole = data("checkpoint/upstream-dinov3-whole");
    let scratch = Scratch::of("checkpoint/upstream-dinov3-whole");
    scratch.set("hints.json", "delta", json!(true));
    let hints = scratch.join("hints.json");
    let said = read(&whole, &Options { hints: hints.to_str(), base: Some(&base) }).unwrap_err().to_string();
    assert_says(&said, &["'delta' is true", "network.encoder.pixel_std", "whole"]);
    let scratch = Scratch::of("checkpoint/upstream-dinov3-delta");
    scratch.set("hints.json", "delta", json!(false));
    assert_says(&sentence(&scratch.0, Some(&scratch.join("hints.json"))), &["'delta' is false", "network.encoder.pixel_std", "delta"]);
}
