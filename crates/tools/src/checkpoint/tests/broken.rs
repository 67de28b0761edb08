//! Every way in which a checkpoint can be wrong has its sentence, with the key or tensor in it.

use super::*;

/// Breaks the weights of a reference case and returns the sentence.
fn broken(case: &str, edit: impl FnOnce(&mut Raw)) -> String {
    let scratch = Scratch::of(case);
    let mut raw = read_raw(&scratch.join("model.safetensors"));
    edit(&mut raw);
    write_raw(&scratch.join("model.safetensors"), &raw);
    sentence(&scratch.0, None)
}

/// Contradicts the weights of a reference case and returns the sentence.
fn contradicted(case: &str, key: &str, value: Value) -> String {
    let scratch = Scratch::of(case);
    scratch.set("config.json", key, value);
    sentence(&scratch.0, None)
}

#[test]
fn a_wrong_tensor_is_named() {
    for (case, step) in [("checkpoint/hf-mixed-masking-10", 1), ("checkpoint/hf-dinov3-gated", 1), ("reference/dinov2-swiglu", 9)] {
        let names: Vec<String> = read_raw(&data(case).join("model.safetensors")).into_keys().collect();
        for name in names.iter().filter(|name| *name != "criterion.empty_weight" && !name.ends_with("register_tokens")).step_by(step) {
            let said = broken(case, |raw| drop(raw.remove(name)));
            assert_says(&said, &["model.safetensors", name, "missing"]);
            let said = broken(case, |raw| raw.get_mut(name).unwrap().1.push(1));
            assert_says(&said, &[name, "has"]);
            let said = broken(case, |raw| {
                let bytes = &mut raw.get_mut(name).unwrap().2;
                let end = bytes.len();
                bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
            });
            assert_says(&said, &[name, "not a finite number"]);
        }
    }
}

#[test]
fn an_extra_tensor_is_named_and_known_ones_are_not() {
    let one = || ("F32".to_string(), vec![1], vec![0; 4]);
    let said = broken("reference/dinov2", |raw| drop(raw.insert("layers.2.attention.q_norm.weight".into(), one())));
    assert_says(&said, &["'layers.2.attention.q_norm.weight' is no part of an EoMT network"]);
    let scratch = Scratch::of("reference/dinov2");
    let mut raw = read_raw(&scratch.join("model.safetensors"));
    for name in ["embeddings.mask_token", "embeddings.position_ids", "rope_embeddings.inv_freq"] {
        raw.insert(name.into(), ("I64".into(), vec![1], vec![0; 8]));
    }
    write_raw(&scratch.join("model.safetensors"), &raw);
    read(&scratch.0, &Options::default()).unwrap();
}

#[test]
fn integers_are_no_weights() {
    let said = broken("reference/dinov2", |raw| raw.get_mut("query.weight").unwrap().0 = "I32".into());
    assert_says(&said, &["query.weight", "I32", "BF16"]);
}

#[test]
fn a_configuration_that_contradicts_the_weights_is_named_with_the_tensor() {
    let cases = [
        ("hidden_size", json!(64), "query.weight"),
        ("num_queries", json!(200), "query.weight"),
        ("num_hidden_layers", json!(5), "layers.4.norm1.weight"),
        ("num_hidden_layers", json!(3), "layers.3.norm1.weight"),
        ("num_hidden_layers", json!(1_000_000), "layers.999999.norm1.weight"),
        ("num_blocks", json!(3), "attn_mask_probs"),
        ("num_register_tokens", json!(0), "embeddings.register_tokens"),
        ("num_attention_heads", json!(5), "query.weight"),
        ("image_size", json!(128), "embeddings.position_embeddings.weight"),
        ("image_size", json!([96, 112]), "embeddings.position_embeddings.weight"),
        ("patch_size", json!(8), "embeddings.patch_embeddings.projection.weight"),
        ("mlp_ratio", json!(3), "layers.0.mlp.fc1.weight"),
        ("num_upscale_blocks", json!(1), "upscale_block.block.1.conv1.weight"),
        ("num_upscale_blocks", json!(3), "upscale_block.block.2.conv1.weight"),
        ("id2label", json!({"0": "a", "1": "b"}), "class_predictor.weight"),
        ("num_labels", json!(8), "class_predictor.weight"),
        ("id2label", Value::Null, "class_predictor.weight"),
        ("hidden_size", Value::Null, "query.weight"),
    ];
    for (key, value, tensor) in cases {
        let reported = if key == "id2label" && value.is_null() { "num_labels" } else { key };
        assert_says(&contradicted("reference/dinov2", key, value), &["config.json", &format!("'{reported}'"), tensor]);
    }
    assert_says(&contradicted("reference/dinov3", "intermediate_size", json!(200)), &["intermediate_size", "layers.0.mlp.up_proj.weight"]);
    assert_says(&contradicted("reference/dinov3", "num_attention_heads", json!(8)), &["num_attention_heads", "multiple of 4"]);
    assert_says(&contradicted("reference/dinov3", "key_bias", json!(true)), &["layers.0.attention.k_proj.bias", "missing"]);
    assert_says(&contradicted("reference/dinov3", "query_bias", json!(false)), &["layers.0.attention.q_proj.bias", "no part"]);
}

#[test]
fn a_value_that_cannot_be_is_named() {
    let cases = [
        ("hidden_act", json!("mish"), "mish"),
        ("num_attention_heads", json!(0), "above 0"),
        ("patch_size", json!(0), "above 0"),
        ("patch_size", json!([16]), "list of two"),
        ("image_size", json!(8), "less than a patch"),
        ("num_hidden_layers", json!(1e300), "1e+300"),
        ("num_queries", json!(-1), "-1"),
        ("num_queries", json!(u64::MAX), "expected a whole number"),
        ("num_blocks", json!("two"), "two"),
        ("layer_norm_eps", json!(0), "above 0"),
        ("num_channels", json!(4), "expected 3"),
        ("use_swiglu_ffn", json!(1), "true or false"),
        ("model_type", json!("vit"), "eomt_dinov3"),
        ("id2label", json!({"0": "a", "2": "b"}), "none is numbered 1"),
        ("id2label", json!({"zero": "a"}), "zero"),
        ("id2label", json!(["a"]), "an object"),
    ];
    for (key, value, part) in cases {
        assert_says(&contradicted("reference/dinov2", key, value), &["config.json", &format!("'{key}'"), part]);
    }
    let rope = json!({"rope_type": "yarn", "rope_theta": 100.0});
    assert_says(&contradicted("reference/dinov3", "rope_parameters", rope), &["rope_type", "yarn"]);
}

#[test]
fn defaults_are_those_of_transformers() {
    let scratch = Scratch::of("reference/dinov3");
    for key in ["num_register_tokens", "num_upscale_blocks", "layer_norm_eps", "patch_size", "hidden_act", "rope_parameters", "key_bias"] {
        scratch.set("config.json", key, Value::Null);
    }
    let network = read(&scratch.0, &Options::default()).unwrap().network;
    assert_eq!(network, read_case("reference/dinov3").network);
    scratch.set("config.json", "rope_theta", json!(37.5));
    assert_eq!(read(&scratch.0, &Options::default()).unwrap().network.position, Position::Rotary { theta: 37.5 });
}

#[test]
fn a_class_head_without_classes_is_told() {
    let scratch = Scratch::of("reference/dinov2");
    let mut raw = read_raw(&scratch.join("model.safetensors"));
    raw.insert("class_predictor.weight".into(), ("F32".into(), vec![1, 48], vec![0; 192]));
    raw.insert("class_predictor.bias".into(), ("F32".into(), vec![1], vec![0; 4]));
    write_raw(&scratch.join("model.safetensors"), &raw);
    scratch.set("config.json", "id2label", json!({}));
    assert_says(&sentence(&scratch.0, None), &["class_predictor.weight", "none for a class"]);
}

#[test]
fn labels_are_sorted_by_number() {
    let scratch = Scratch::of("reference/dinov2");
    let names: Map<String, Value> = (0..7).rev().map(|i| (i.to_string(), json!(format!("class {i}")))).collect();
    scratch.set("config.json", "id2label", json!(names));
    assert_eq!(read(&scratch.0, &Options::default()).unwrap().labels[6], "class 6");
}

#[test]
fn a_probability_between_warns() {
    let scratch = Scratch::of("reference/dinov2");
    let mut raw = read_raw(&scratch.join("model.safetensors"));
    raw.get_mut("attn_mask_probs").unwrap().2 = [0.25f32, 0.0].iter().flat_map(|p| p.to_le_bytes()).collect();
    write_raw(&scratch.join("model.safetensors"), &raw);
    let checkpoint = read(&scratch.0, &Options::default()).unwrap();
    assert_eq!(checkpoint.network.masking, [Masking::Own, Masking::Previous]);
    assert_says(&checkpoint.warnings[0], &["0.25"]);
}

#[test]
fn folders_without_a_checkpoint_are_told() {
    let scratch = Scratch::new();
    assert_says(&sentence(&scratch.0, None), &["no model.safetensors and no pytorch_model.bin"]);
    assert_says(&sentence(&scratch.join("nowhere"), None), &["nowhere", "cannot read"]);
    fs::write(scratch.join("pytorch_model.bin"), "hello").unwrap();
    assert_says(&sentence(&scratch.0, None), &["pytorch_model.bin", "not a zip file"]);
    fs::write(scratch.join("pytorch_model.bin"), b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    assert_says(&sentence(&scratch.0, None), &["before version 1.6", "torch.save"]);
    let scratch = Scratch::of("reference/dinov2");
    fs::remove_file(scratch.join("config.json")).unwrap();
    assert_says(&sentence(&scratch.0, None), &["num_attention_heads", "no config.json"]);
    // With the heads, the shapes tell the rest, and a warning says so.
    scratch.set("hints.json", "num_attention_heads", json!(3));
    let checkpoint = read(&scratch.0, &Options { hints: scratch.join("hints.json").to_str(), base: None }).unwrap();
    assert_eq!(checkpoint.network, read_case("reference/dinov2").network);
    assert_says(&checkpoint.warnings[0], &["no config.json"]);
    fs::write(scratch.join("config.json"), "{").unwrap();
    assert_says(&sentence(&scratch.0, None), &["config.json", "not valid JSON"]);
}
