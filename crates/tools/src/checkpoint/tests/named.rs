//! Hints, published models, their classes, and DINOv3 deltas.

use eomt_edge_core::data::Task;
use eomt_edge_core::model::label_sets::{ADE20K_STUFF, COCO_PANOPTIC, LabelSet};

use super::super::presets::{self, Named, PRESETS, Size};
use super::*;

fn hints_sentence(case: &str, edit: impl FnOnce(&Scratch)) -> String {
    let scratch = Scratch::of(case);
    edit(&scratch);
    sentence(&scratch.0, Some(&scratch.join("hints.json")))
}

#[test]
fn published_models_are_found_by_every_name() {
    assert_eq!(PRESETS.len(), 21);
    for preset in &PRESETS {
        for name in preset.names {
            assert_eq!(presets::named(name), Some(Named::Model(preset)), "{name}");
            assert_eq!(presets::named(&format!("tue-mps/{name}")), Some(Named::Model(preset)));
            for path in [format!("models--tue-mps--{name}/snapshots/1a2b/pytorch_model.bin"), format!("/x/{name}.bin"), name.to_string()] {
                assert_eq!(presets::in_path(Path::new(&path)), Some(Named::Model(preset)), "{path}");
            }
        }
        assert_eq!(preset.dinov3, preset.names[0].ends_with("dinov3"));
        assert!(preset.names[0].contains(&preset.input.to_string()) && preset.names[0].contains(preset.task.name()));
        assert_eq!(preset.size.hidden() % 64, 0);
    }
    assert_eq!(presets::named("coco_panoptic_eomt_small_641"), None);
    assert_eq!(presets::in_path(Path::new("/coco_panoptic_eomt_small_640_old/x.bin")), None);
}

#[test]
fn classes_of_the_datasets() {
    let count = |dataset: LabelSet, task| (dataset.labels(task).len(), dataset.stuff(task).len());
    assert_eq!(count(LabelSet::Coco, Task::Panoptic), (133, 53));
    assert_eq!(count(LabelSet::Coco, Task::Instance), (80, 0));
    assert_eq!(count(LabelSet::Ade20k, Task::Panoptic), (150, 50));
    assert_eq!(count(LabelSet::Ade20k, Task::Semantic), (150, 150));
    assert_eq!(count(LabelSet::Cityscapes, Task::Semantic), (19, 19));
    // Landmarks, by the category ids of the datasets: COCO 1, 90, 92, 200; ADE20K 1, 13, 150; Cityscapes 0, 18.
    assert_eq!(
        [COCO_PANOPTIC[0], COCO_PANOPTIC[79], COCO_PANOPTIC[80], COCO_PANOPTIC[132]],
        ["person", "toothbrush", "banner", "rug-merged"]
    );
    let ade = LabelSet::Ade20k.labels(Task::Semantic);
    assert_eq!([ade[0], ade[12], ade[149]], ["wall", "person", "flag"]);
    let stuff: Vec<&str> = ADE20K_STUFF.iter().map(|class| ade[*class]).collect();
    assert!(["wall", "sky", "sea", "river", "lake", "pier"].iter().all(|name| stuff.contains(name)) && !stuff.contains(&"person"));
    assert_eq!(LabelSet::Cityscapes.labels(Task::Semantic)[18], "bicycle");
    for table in [&COCO_PANOPTIC[..], ade] {
        let distinct: std::collections::BTreeSet<_> = table.iter().collect();
        assert_eq!(distinct.len(), table.len());
    }
    assert_eq!(Size::Giant.hidden(), 1536);
}

#[test]
fn a_folder_of_transformers_with_known_classes_knows_its_stuff() {
    let scratch = Scratch::of("reference/dinov2");
    let mut raw = read_raw(&scratch.join("model.safetensors"));
    let zeros = |shape: Vec<usize>| ("F32".to_string(), shape.clone(), vec![0; 4 * shape.iter().product::<usize>()]);
    raw.insert("class_predictor.weight".into(), zeros(vec![134, 48]));
    raw.insert("class_predictor.bias".into(), zeros(vec![134]));
    write_raw(&scratch.join("model.safetensors"), &raw);
    let labels: Map<String, Value> = COCO_PANOPTIC.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect();
    scratch.set("config.json", "id2label", json!(labels));
    let checkpoint = read(&scratch.0, &Options::default()).unwrap();
    assert_eq!((checkpoint.task, checkpoint.stuff_classes), (Some(Task::Panoptic), Some((80..133).collect())));
}

#[test]
fn a_published_name_that_does_not_fit_gives_way_unless_it_was_asked_for() {
    let scratch = Scratch::new();
    let dir = scratch.join("coco_panoptic_eomt_small_640_2x");
    fs::create_dir(&dir).unwrap();
    fs::copy(data("reference/upstream-layout/pytorch_model.bin"), dir.join("pytorch_model.bin")).unwrap();
    let hints = data("reference/upstream-layout/hints.json");
    let checkpoint = read(&dir, &Options { hints: hints.to_str(), base: None }).unwrap();
    assert_says(&checkpoint.warnings[0], &["coco_panoptic_eomt_small_640_2x", "48", "384"]);
    assert_eq!((checkpoint.labels.len(), checkpoint.task), (7, None));
    let asked = Options { hints: Some("coco_panoptic_eomt_small_640_2x"), base: None };
    assert_says(&read(&dir, &asked).unwrap_err().to_string(), &["preset", "coco_panoptic_eomt_small_640_2x", "network.q.weight", "384"]);
    let large = Options { hints: Some("coco_panoptic_eomt_7b_640"), base: None };
    assert_says(&read(&dir, &large).unwrap_err().to_string(), &["coco_panoptic_eomt_7b_640", "not supported"]);
    let unknown = Options { hints: Some("coco_eomt"), base: None };
    assert_says(
        &read(&dir, &unknown).unwrap_err().to_string(),
        &["coco_eomt", "neither a file nor", "cityscapes_semantic_eomt_large_1024"],
    );
}

#[test]
fn hints_name_classes_and_task() {
    let checkpoint = read_case("checkpoint/upstream-masked");
    assert_eq!(checkpoint.labels, ["a", "b", "c", "d", "e"]);
    assert_eq!((checkpoint.stuff_classes, checkpoint.task), (Some(vec![2, 4]), Some(Task::Panoptic)));
    assert_eq!(checkpoint.network.masking, [Masking::Own; 2]);
    let scratch = Scratch::of("checkpoint/upstream-masked");
    scratch.set("hints.json", "masked_attention", json!(false));
    let off = read(&scratch.0, &Options { hints: scratch.join("hints.json").to_str(), base: None }).unwrap();
    assert_eq!(off.network.masking, [Masking::Off; 2]);
}

#[test]
fn wrong_hints_are_named() {
    let case = "reference/upstream-layout";
    let cases = [
        ("num_head", json!(3), "not a hint"),
        ("num_labels", json!(8), "network.class_head.weight"),
        ("labels", json!(["a"]), "the number of its 'labels' is 1"),
        ("num_blocks", json!(3), "network.attn_mask_probs"),
        ("image_size", json!(128), "network.encoder.backbone.pos_embed"),
        ("patch_size", json!(8), "patch_embed.proj.weight"),
        ("num_register_tokens", json!(5), "reg_token"),
        ("num_attention_heads", json!(5), "share evenly"),
        ("num_attention_heads", Value::Null, "is needed in the hints"),
        ("stuff_classes", json!([7]), "there are 7"),
        ("task", json!("detection"), "panoptic, instance or semantic"),
        ("preset", json!("coco"), "published model"),
        ("layer_norm_eps", json!("small"), "above 0"),
        ("delta", json!(true), "DINOv3"),
    ];
    for (key, value, part) in cases {
        let said = hints_sentence(case, |scratch| {
            scratch.set("hints.json", key, value);
        });
        let reported = if key == "labels" { "num_labels" } else { key };
        assert_says(&said, &[&format!("'{reported}'"), part]);
    }
    let scratch = Scratch::of("reference/dinov2");
    scratch.set("hints.json", "image_size", json!(112));
    assert_says(&sentence(&scratch.0, Some(&scratch.join("hints.json"))), &["image_size", "[112, 112]", "config.json says [96, 96]"]);
}

#[test]
fn hints_fill_in_the_classes_of_an_unnamed_transformers_folder() {
    let scratch = Scratch::of("reference/dinov2");
    scratch.set("hints.json", "labels", json!(["a", "b", "c", "d", "e", "f", "g"])).set("hints.json", "task", json!("semantic"));
    let checkpoint = read(&scratch.0, &Options { hints: scratch.join("hints.json").to_str(), base: None }).unwrap();
    assert_eq!((checkpoint.labels[6].as_str(), checkpoint.task), ("g", Some(Task::Semantic)));
}

#[test]
fn a_delta_needs_its_base_and_others_none() {
    let dir = data("checkpoint/upstream-dinov3-delta");
    let (hints, base) = (dir.join("hints.json"), dir.join("base"));
    assert_says(&sentence(&dir, Some(&hints)), &["--base"]);
    let checkpoint = read_case("checkpoint/upstream-dinov3-delta");
    assert_eq!((checkpoint.image_mean, checkpoint.image_std), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
    assert_eq!(checkpoint.network.position, Position::Rotary { theta: 50.0 });
    assert_eq!(checkpoint.network.norm.eps, 1e-5);
    let plain = data("reference/upstream-layout");
    let plain_hints = plain.join("hints.json");
    let options = Options { hints: plain_hints.to_str(), base: Some(&base) };
    assert_says(&read(&plain, &options).unwrap_err().to_string(), &["whole checkpoint", "--base"]);
    let options = Options { hints: None, base: Some(&base) };
    assert_says(&read(&data("reference/dinov2"), &options).unwrap_err().to_string(), &["whole checkpoint", "--base"]);
    let scratch = Scratch::of("checkpoint/upstream-dinov3-delta");
    let wrong = Options { hints: hints.to_str(), base: Some(&scratch.0) };
    assert_says(&read(&dir, &wrong).unwrap_err().to_string(), &["config.json", "cannot read"]);
    scratch.set("hints.json", "delta", json!(null));
    let silent = scratch.join("hints.json");
    assert_eq!(read(&dir, &Options { hints: silent.to_str(), base: Some(&base) }).unwrap().network, checkpoint.network);
    assert_says(&sentence(&scratch.0, Some(&scratch.join("hints.json"))), &["pixel_std", "--base"]);
}

#[test]
fn a_base_of_another_size_or_with_other_names_is_told() {
    let dir = data("checkpoint/upstream-dinov3-delta");
    let hints = dir.join("hints.json");
    let scratch = Scratch::of("checkpoint/upstream-dinov3-delta/base");
    let options = Options { hints: hints.to_str(), base: Some(&scratch.0) };
    let mut raw = read_raw(&scratch.join("model.safetensors"));
    // Newer transformers put the layers, or the whole model, below `model.`.
    let moved = raw.iter().map(|(name, tensor)| (format!("model.{}", name.replace("layer.", "model.layer.")), tensor.clone())).collect();
    write_raw(&scratch.join("model.safetensors"), &moved);
    assert_eq!(read(&dir, &options).unwrap().network, read_case("checkpoint/upstream-dinov3-delta").network);
    let norm = raw.remove("layer.2.norm1.weight").unwrap();
    write_raw(&scratch.join("model.safetensors"), &raw);
    assert_says(&read(&dir, &options).unwrap_err().to_string(), &["layer.2.norm1.weight", "missing"]);
    raw.insert("layer.2.norm1.weight".into(), (norm.0, vec![8], norm.2[..32].to_vec()));
    write_raw(&scratch.join("model.safetensors"), &raw);
    assert_says(&read(&dir, &options).unwrap_err().to_string(), &["layer.2.norm1.weight", "[8]", "[16]"]);
}
