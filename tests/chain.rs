//! Networks with Mask2Former's decoder, converted: their logits, other sizes, `segment` and `bench`, what is refused.

mod common;

use std::path::{Path, PathBuf};

use common::{Scratch, eomt_edge, fail, succeed};
use safetensors::SafeTensors;

const NAMES: [&str; 4] = ["vit-adapter-m2f", "no-adapter", "no-pixel-decoder", "no-multi-scale"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chain").join(name)
}

fn floats(path: &Path, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn convert(scratch: &Scratch, name: &str, options: &[&str]) -> PathBuf {
    let model = scratch.path(&format!("{name}.onnx"));
    succeed(eomt_edge().arg("convert").arg(folder(name)).arg("-o").arg(&model).args(options));
    model
}

/// Against transformers' decoders, and encoder, adapter and pyramid in plain PyTorch (`tests/data/chain/make_chain.py`).
#[test]
fn logits_are_those_of_the_references() {
    let scratch = Scratch::new("chain-logits");
    for name in NAMES {
        let model = convert(&scratch, name, &[]);
        let (expected, output) = (folder(name).join("expected.safetensors"), scratch.path("out.safetensors"));
        succeed(eomt_edge().arg("logits").arg("--model").arg(&model).arg(&expected).arg("-o").arg(&output));
        for tensor in ["class_queries_logits", "masks_queries_logits"] {
            let (ours, theirs) = (floats(&output, tensor), floats(&expected, tensor));
            assert_eq!(ours.len(), theirs.len(), "{name}: {tensor}");
            let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            let largest = theirs.iter().fold(1.0f32, |most, value| most.max(value.abs()));
            assert!(apart < 1e-4 * largest, "{name}: {tensor}: {apart} apart of {largest}"); // f32 sums in another order
        }
    }
}

/// Not square, larger than in training; the whole program runs it, and its file holds what it says.
#[test]
fn other_sizes_run_from_picture_to_segments() {
    let scratch = Scratch::new("chain-run");
    let scenes = scratch.path("scenes");
    succeed(eomt_edge().arg("scenes").arg(&scenes).args(["--size", "96", "--count", "1", "--seed", "3"]));
    for name in NAMES {
        let model = convert(&scratch, name, &["--size", "64x96"]);
        let output = scratch.path(&format!("{name}-segments"));
        succeed(eomt_edge().arg("segment").arg("--model").arg(&model).arg(scenes.join("images/000000.png")).arg("-o").arg(&output));
        assert!(output.join("000000.json").exists());
        let bench = succeed(eomt_edge().arg("bench").arg("--model").arg(&model).args(["--frames", "2", "--json"]));
        let bench: serde_json::Value = serde_json::from_slice(&bench.stdout).unwrap();
        assert_eq!((bench["precision"].as_str(), bench["frames"].as_u64()), (Some("f32"), Some(2)), "{name}");
    }
}

/// What cannot be done is said in a sentence that names the option, the key or the tensor.
#[test]
fn what_is_wrong_is_refused_in_words() {
    let scratch = Scratch::new("chain-refused");
    let (source, model) = (folder("no-multi-scale"), scratch.path("model.onnx"));
    let convert = |checkpoint: &Path, options: &[&str], code: i32| {
        fail(eomt_edge().arg("convert").arg(checkpoint).arg("-o").arg(&model).args(options), code)
    };
    for precision in ["int8", "bf16"] {
        let refused = convert(&source, &["--precision", precision], 2);
        assert!(refused.contains(precision) && refused.contains("f32 only"), "{refused}");
    }
    assert!(convert(&source, &["--size", "48"], 2).contains("multiples of two patches"));
    let broken = scratch.path("broken");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::copy(source.join("model.safetensors"), broken.join("model.safetensors")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(source.join("config.json")).unwrap()).unwrap();
    let refused = |key: &str, value: serde_json::Value| {
        let mut config = config.clone();
        config[key] = value;
        std::fs::write(broken.join("config.json"), config.to_string()).unwrap();
        let sentence = convert(&broken, &[], 1);
        assert!(!model.exists() && sentence.lines().count() == 1, "{sentence}");
        sentence
    };
    assert!(refused("decoder_width", 24.into()).contains("24"));
    assert!(refused("decoder_width", 64.into()).contains("expected"));
    assert!(refused("decoder_layers", 5.into()).contains("layers.4"));
    assert!(refused("decoder_layers", 3.into()).contains("layers.3"));
    assert!(refused("decoder_layers", serde_json::Value::Null).contains("decoder_layers"));
    assert!(refused("blocks", 100_000_000.into()).contains("100000000"));
    assert!(refused("image", 1_048_576.into()).contains("1048576"));
    assert!(refused("architecture", "no-such".into()).contains("no-such"));
    assert!(refused("id2label", serde_json::json!({ "0": "one" })).contains("id2label"));
    assert!(refused("stuff_classes", serde_json::json!([7])).contains("stuff_classes"));
    assert!(refused("heads", 0.into()).contains("above 0"));
}

/// One step from random weights, resumed; the checkpoint converts. Only what goes together is taken.
#[cfg(feature = "train")]
#[test]
fn each_is_trained_and_converted() {
    const SMALL: &str =
        "--size 64 --width 32 --heads 2 --blocks 2 --queries 6 --batch 5 --points 32 --save-every 1 --decoder-width 32 --decoder-layers 2";
    let scratch = Scratch::new("chain-train");
    let train = |output: &Path, name: &str, options: &str| {
        let mut command = eomt_edge();
        command.args(["train", "--scenes", "1", "--architecture", name, "-o"]).arg(output).args(SMALL.split(' ')).args(options.split(' '));
        command
    };
    for name in NAMES {
        let layers = if ["vit-adapter-m2f", "no-adapter"].contains(&name) { " --pixel-decoder-layers 1" } else { "" };
        let bytes = |run: &Path| std::fs::read(run.join("model.safetensors")).unwrap();
        let runs = ["one", "two"].map(|run| scratch.path(&format!("{name}-{run}")));
        for (run, threads) in runs.iter().zip(["1", "2"]) {
            succeed(&mut train(run, name, &format!("--steps 2 --threads {threads}{layers}")));
        }
        assert!(bytes(&runs[0]) == bytes(&runs[1]), "{name}: one thread against two");
        let start = scratch.path(&format!("{name}-start"));
        succeed(&mut train(&start, name, &format!("--steps 0{layers}")));
        assert!(bytes(&start) != bytes(&runs[0]), "{name}: nothing has changed");
        let model = scratch.path(&format!("{name}.onnx"));
        succeed(eomt_edge().arg("convert").arg(&runs[0]).arg("-o").arg(&model));
        let refused = fail(eomt_edge().args(["train", "--scenes", "1", "-o"]).arg(scratch.path("no")).arg("--from").arg(&start), 1);
        assert!(refused.contains("only `convert` reads"), "{refused}");
    }
    let no = scratch.path("refused");
    for (name, options, words) in [
        ("no-multi-scale", "--pixel-decoder-layers 1 --steps 1", "no pixel decoder"),
        ("no-adapter", "--query-blocks 2 --steps 1", "--query-blocks"),
        ("no-adapter", "--patch 8 --steps 1", "--patch 8"),
        ("no-adapter", "--masking never --steps 1", "--masking"),
        ("eomt", "--steps 1", "--decoder-width"),
    ] {
        let sentence = fail(&mut train(&no, name, options), 2);
        assert!(sentence.contains(words), "{sentence}");
    }
}
