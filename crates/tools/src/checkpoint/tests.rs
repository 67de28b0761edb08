//! Reads every reference checkpoint, compares with bytes read another way, computes with what was read, and breaks files.
//!
//! Data: `tests/data/reference` (transformers and the authors' code) and `tests/data/checkpoint` (what those leave out:
//! SwiGLU packed by timm, positions of prefix tokens, strided tensors, DINOv3 deltas, mixed masks, 16-bit weights).

mod broken;
mod damage;
mod family;
pub(crate) mod forward;
mod named;
mod wrapped;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};

use super::*;

fn data(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data").join(part)
}

/// A folder that goes away with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("eomt-edge-checkpoint-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    /// A copy of a folder of the test data, all but the expected outputs.
    fn of(case: &str) -> Scratch {
        let scratch = Scratch::new();
        for entry in fs::read_dir(data(case)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && !path.ends_with("expected.safetensors") {
                fs::write(scratch.join(path.file_name().unwrap().to_str().unwrap()), fs::read(&path).unwrap()).unwrap();
            }
        }
        scratch
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Changes a key of a JSON file; `null` removes it.
    fn set(&self, file: &str, key: &str, value: Value) -> &Scratch {
        let mut map: Map<String, Value> = match fs::read(self.join(file)) {
            Ok(text) => serde_json::from_slice(&text).unwrap(),
            Err(_) => Map::new(),
        };
        if value.is_null() {
            map.remove(key)
        } else {
            map.insert(key.into(), value)
        };
        fs::write(self.join(file), serde_json::to_vec(&map).unwrap()).unwrap();
        self
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Safetensors read without the code under test: name to type, shape and bytes.
type Raw = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

fn read_raw(path: &Path) -> Raw {
    let bytes = fs::read(path).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    let tensor = |info: &Value| {
        let offset = |i: usize| 8 + header_len + info["data_offsets"][i].as_u64().unwrap() as usize;
        let shape = info["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
        (info["dtype"].as_str().unwrap().to_string(), shape, bytes[offset(0)..offset(1)].to_vec())
    };
    header.iter().filter(|(name, _)| *name != "__metadata__").map(|(name, info)| (name.clone(), tensor(info))).collect()
}

fn write_raw(path: &Path, raw: &Raw) {
    let (mut header, mut data) = (Map::new(), vec![]);
    for (name, (kind, shape, bytes)) in raw {
        let start = data.len();
        data.extend_from_slice(bytes);
        header.insert(name.clone(), json!({"dtype": kind, "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = serde_json::to_vec(&header).unwrap();
    fs::write(path, [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()).unwrap();
}

fn floats(raw: &Raw, name: &str) -> Vec<f32> {
    assert_eq!(raw[name].0, "F32");
    raw[name].2.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Options with the hints and the base that lie in the folder of a test case.
fn read_case(case: &str) -> Checkpoint {
    let dir = data(case);
    let (hints, base) = (dir.join("hints.json"), dir.join("base"));
    let hints = hints.is_file().then(|| hints.to_str().unwrap().to_string());
    read(&dir, &Options { hints: hints.as_deref(), base: base.is_dir().then_some(&base) }).unwrap_or_else(|error| panic!("{case}: {error}"))
}

fn sentence(path: &Path, hints: Option<&Path>) -> String {
    let options = Options { hints: hints.map(|path| path.to_str().unwrap()), base: None };
    let error = read(path, &options).expect_err("this checkpoint is broken").to_string();
    assert!(!error.contains('\n') && !error.contains("Error") && error.len() < 1200, "no sentence: {error}");
    error
}

#[track_caller]
fn assert_says(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "'{part}' is not in: {sentence}");
    }
}

#[test]
fn reads_what_the_bytes_say() {
    for case in ["dinov2", "dinov2-masked", "dinov2-swiglu", "dinov2-patch8", "dinov3", "dinov3-masked"] {
        let case = format!("reference/{case}");
        let (checkpoint, raw) = (read_case(&case), read_raw(&data(&case).join("model.safetensors")));
        let network = &checkpoint.network;
        assert_eq!((network.hidden, network.heads, network.num_blocks, network.blocks.len()), (48, 3, 2, 4));
        assert_eq!(network.queries, Array { shape: vec![10, 48], data: floats(&raw, "query.weight") });
        assert_eq!(network.cls_token, floats(&raw, "embeddings.cls_token"));
        assert_eq!(network.register_tokens.data, floats(&raw, "embeddings.register_tokens"));
        assert_eq!(network.blocks[3].k.weight.data, floats(&raw, "layers.3.attention.k_proj.weight"));
        assert_eq!(network.blocks[2].q.bias, Some(floats(&raw, "layers.2.attention.q_proj.bias")));
        assert_eq!(network.blocks[1].scale2, Some(floats(&raw, "layers.1.layer_scale2.lambda1")));
        assert_eq!(network.norm.shift, floats(&raw, "layernorm.bias"));
        assert_eq!(network.mask_head[1].weight.data, floats(&raw, "mask_head.fc2.weight"));
        assert_eq!(network.scale_blocks[0].depthwise.data, floats(&raw, "upscale_block.block.0.conv2.weight"));
        assert_eq!(network.scale_blocks[0].norm.eps, 1e-6);
        let masking = if case.ends_with("masked") { Masking::Own } else { Masking::Off };
        assert_eq!(network.masking, [masking; 2]);
        assert_eq!(checkpoint.labels, (0..7).map(|i| format!("LABEL_{i}")).collect::<Vec<_>>());
        assert_eq!((checkpoint.task, checkpoint.stuff_classes, checkpoint.warnings), (None, None, vec![]));
        assert_eq!(checkpoint.name, case.strip_prefix("reference/").unwrap());
    }
}

#[test]
fn kinds_of_networks_are_told_apart() {
    let swiglu = read_case("reference/dinov2-swiglu").network;
    assert!(matches!(&swiglu.blocks[0].mlp, Mlp::Gated { gate, activation: Activation::Silu, .. } if gate.weight.shape == [128, 48]));
    assert_eq!((swiglu.register_tokens.shape, swiglu.head_activation), (vec![0, 48], Activation::Gelu));
    let patch8 = read_case("reference/dinov2-patch8").network;
    assert_eq!((patch8.scale_blocks.len(), patch8.patch_size, patch8.image_size), (1, [8, 8], [64, 64]));
    assert!(matches!(patch8.position, Position::Learned { grid: [8, 8], .. }));
    let dinov3 = read_case("reference/dinov3").network;
    assert_eq!((dinov3.position, dinov3.blocks[0].k.bias.is_none()), (Position::Rotary { theta: 100.0 }, true));
    assert_eq!(read_case("checkpoint/hf-mixed-masking-10").network.masking, [Masking::Own, Masking::Previous]);
    assert_eq!(read_case("checkpoint/hf-mixed-masking-01").network.masking, [Masking::Off, Masking::Own]);
}

#[test]
fn fused_projections_are_cut_into_thirds() {
    let path = data("reference/upstream-layout/pytorch_model.bin");
    let network = read_case("reference/upstream-layout").network;
    let mut tensors = weights::open(&path, None).unwrap();
    let prefix = "network.encoder.backbone.blocks.2.attn.qkv";
    let fused = tensors.linear(prefix, 144, 48, true).unwrap();
    let block = &network.blocks[2];
    assert_eq!([&block.q, &block.k, &block.v].map(|part| &part.weight.data[..]).concat(), fused.weight.data);
    assert_eq!([&block.q, &block.k, &block.v].map(|part| part.bias.clone().unwrap()).concat(), fused.bias.unwrap());
}

#[test]
fn hash_is_that_of_the_file() {
    // From sha256sum.
    let expected = "5bfd5f8efa9c46197c52f409cf08942e6e5cb56645e6cced2216eb92bd1845eb";
    assert_eq!(read_case("reference/dinov2").source_sha256, expected);
}

#[test]
fn strided_nested_and_compiled_equals_plain() {
    let (strided, plain) = (read_case("checkpoint/upstream-strided"), read_case("checkpoint/upstream-cls-posembed"));
    assert_eq!(strided.network, plain.network);
    assert_eq!(plain.network.image_size, [64, 64]);
}

#[test]
fn shards_equal_one_file() {
    let scratch = Scratch::of("reference/dinov2");
    let whole = read(&scratch.0, &Options::default()).unwrap();
    let raw = read_raw(&scratch.join("model.safetensors"));
    let (first, second): (Raw, Raw) = raw.into_iter().partition(|(name, _)| name.as_str() < "layers.2");
    let mut map = Map::new();
    for (file, shard) in [("model-00001-of-00002.safetensors", &first), ("model-00002-of-00002.safetensors", &second)] {
        write_raw(&scratch.join(file), shard);
        map.extend(shard.keys().map(|name| (name.clone(), json!(file))));
    }
    fs::remove_file(scratch.join("model.safetensors")).unwrap();
    scratch.set("model.safetensors.index.json", "weight_map", json!(map));
    assert_eq!(read(&scratch.0, &Options::default()).unwrap().network, whole.network);
    map.insert("layers.9.norm1.bias".into(), json!("model-00002-of-00002.safetensors"));
    scratch.set("model.safetensors.index.json", "weight_map", json!(map));
    assert_says(&sentence(&scratch.0, None), &["layers.9.norm1.bias", "missing"]);
}

#[test]
fn packed_gate_of_older_transformers_equals_the_new_names() {
    let scratch = Scratch::of("reference/dinov2-swiglu");
    let new = read(&scratch.0, &Options::default()).unwrap();
    let mut raw = read_raw(&scratch.join("model.safetensors"));
    for layer in 0..4 {
        for part in ["weight", "bias"] {
            let name = |name: &str| format!("layers.{layer}.mlp.{name}.{part}");
            let (kind, mut shape, mut bytes) = raw.remove(&name("gate_proj")).unwrap();
            bytes.extend(raw.remove(&name("up_proj")).unwrap().2);
            shape[0] *= 2;
            raw.insert(name("weights_in"), (kind, shape, bytes));
            let down = raw.remove(&name("down_proj")).unwrap();
            raw.insert(name("weights_out"), down);
        }
    }
    write_raw(&scratch.join("model.safetensors"), &raw);
    assert_eq!(read(&scratch.0, &Options::default()).unwrap().network, new.network);
}

#[test]
fn processor_file_gives_mean_and_deviation() {
    let scratch = Scratch::of("reference/dinov2");
    scratch.set("preprocessor_config.json", "image_mean", json!([0.1, 0.2, 0.3])).set(
        "preprocessor_config.json",
        "image_std",
        json!([1, 2, 3]),
    );
    let checkpoint = read(&scratch.0, &Options::default()).unwrap();
    assert_eq!((checkpoint.image_mean, checkpoint.image_std), ([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]));
    scratch.set("preprocessor_config.json", "do_rescale", json!(false));
    assert_eq!(read(&scratch.0, &Options::default()).unwrap().image_std, [1.0 / 255.0, 2.0 / 255.0, 3.0 / 255.0]);
}

#[test]
fn sixteen_bit_weights_are_exact() {
    for (case, kind) in [("checkpoint/hf-bf16", "BF16"), ("checkpoint/hf-f16", "F16")] {
        let raw = read_raw(&data(case).join("model.safetensors"));
        let (stored, _, bytes) = &raw["query.weight"];
        assert_eq!(stored, kind);
        let network = read_case(case).network;
        for (value, bits) in network.queries.data.iter().zip(bytes.chunks(2)) {
            let bits = u32::from(u16::from_le_bytes(bits.try_into().unwrap()));
            let expected = match kind {
                "BF16" => f32::from_bits(bits << 16),
                // Normal numbers only, by the definition of the format.
                _ => {
                    let (exponent, fraction) = ((bits >> 10 & 31) as i32, (bits & 1023) as f32);
                    let magnitude = if exponent == 0 {
                        fraction / 1024.0 * 2f32.powi(-14)
                    } else {
                        (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15)
                    };
                    if bits >> 15 == 1 { -magnitude } else { magnitude }
                }
            };
            assert_eq!(*value, expected);
        }
    }
}
