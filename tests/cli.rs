//! Bad input gets one clear sentence and a non-zero exit, and leaves nothing behind; odd input works.

mod common;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use common::{Scratch, data, eomt_edge, fail, pytorch_model, shipped_model, succeed};

/// Fails with exit code 1 and one line that holds every word.
fn refuse(command: &mut Command, words: &[&str]) {
    let sentence = fail(command, 1);
    assert_eq!(sentence.trim_end().lines().count(), 1, "{sentence}");
    for word in words {
        assert!(sentence.contains(word), "'{word}' is missing in: {sentence}");
    }
}

/// A copy of the reference checkpoint in which one file differs.
fn broken_checkpoint(scratch: &Scratch, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> std::path::PathBuf {
    let directory = scratch.path("checkpoint");
    std::fs::create_dir_all(&directory).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(data("reference/dinov2").join(name), directory.join(name)).unwrap();
    }
    let path = directory.join(file);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, change(bytes)).unwrap();
    directory
}

fn convert(checkpoint: &Path, output: &Path) -> Command {
    let mut command = eomt_edge();
    command.arg("convert").arg(checkpoint).arg("-o").arg(output);
    command
}

/// A whole checkpoint must not be added to its base, and a difference is nothing without one.
#[test]
fn a_base_is_for_differences_only() {
    let scratch = Scratch::new("base");
    let output = scratch.path("x.onnx");
    let case = |name: &str| {
        let directory = data("checkpoint").join(name);
        let mut command = convert(&directory.join("pytorch_model.bin"), &output);
        command.arg("--hints").arg(directory.join("hints.json"));
        command
    };
    let base = data("checkpoint/upstream-dinov3-delta/base");
    refuse(case("upstream-dinov3-whole").arg("--base").arg(&base), &["pytorch_model.bin", "whole checkpoint", "pixel_std", "--base"]);
    refuse(&mut case("upstream-dinov3-delta"), &["pytorch_model.bin", "difference", "pixel_std", "--base"]);
    assert!(scratch.names().is_empty(), "nothing half-written stays");
    succeed(case("upstream-dinov3-delta").arg("--base").arg(&base));
    succeed(&mut case("upstream-dinov3-whole"));
}

/// From the card beside the weights into the file, and out of it where people look; what the option says counts more, and DINOv3's terms are named.
#[test]
fn licences_travel() {
    let scratch = Scratch::new("licences");
    let checkpoint = broken_checkpoint(&scratch, "config.json", |bytes| bytes);
    std::fs::write(checkpoint.join("README.md"), "---\nlicense: other\nlicense_name: my-terms\n---\n").unwrap();
    let (model, results) = (scratch.path("m.onnx"), scratch.path("results"));
    let shown = |model: &Path| {
        let doctor = eomt_edge().arg("doctor").arg("--model").arg(model).output().expect("starts");
        let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
        succeed(eomt_edge().arg("segment").arg("--model").arg(model).arg(data("clip/000007.png")).arg("-o").arg(&results));
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(results.join("000007.json")).unwrap()).unwrap();
        let line = doctor.lines().find_map(|line| line.trim().strip_prefix("licence: ")).expect("doctor tells").to_owned();
        (line, json["licence"].as_str().unwrap().to_owned())
    };
    succeed(&mut convert(&checkpoint, &model));
    assert_eq!(shown(&model), ("my-terms".to_owned(), "my-terms".to_owned()));
    succeed(convert(&checkpoint, &model).args(["--licence", "CC-BY-4.0"]));
    assert_eq!(shown(&model), ("CC-BY-4.0".to_owned(), "CC-BY-4.0".to_owned()));
    let words = |command: &mut Command| String::from_utf8(succeed(command).stderr).unwrap();
    let bare = words(&mut convert(&data("reference/dinov3"), &model));
    assert!(bare.contains("dinov3-license") && bare.contains("--licence"), "{bare}");
    let (doctor, json) = shown(&model);
    assert!(doctor.contains("does not say") && json.is_empty(), "{doctor}");
    let named = words(convert(&data("reference/dinov3"), &model).args(["--licence", "dinov3-license"]));
    assert!(!named.contains("dinov3-license"), "{named}");
    let base = data("checkpoint/upstream-dinov3-delta");
    succeed(
        convert(&base.join("pytorch_model.bin"), &model).arg("--hints").arg(base.join("hints.json")).arg("--base").arg(base.join("base")),
    );
    assert!(shown(&model).0.starts_with("dinov3-license"));
}

#[test]
fn broken_checkpoints_are_refused_by_name() {
    let scratch = Scratch::new("broken");
    let output = scratch.path("out.onnx");
    let truncated = broken_checkpoint(&scratch, "model.safetensors", |bytes| bytes[..bytes.len() / 2].to_vec());
    refuse(&mut convert(&truncated, &output), &["model.safetensors"]);
    let more_layers = broken_checkpoint(&scratch, "config.json", |bytes| {
        String::from_utf8(bytes).unwrap().replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5").into_bytes()
    });
    refuse(&mut convert(&more_layers, &output), &["num_hidden_layers"]);
    let other_width = broken_checkpoint(&scratch, "config.json", |bytes| {
        String::from_utf8(bytes).unwrap().replace("\"hidden_size\": 48", "\"hidden_size\": 96").into_bytes()
    });
    refuse(&mut convert(&other_width, &output), &["hidden_size"]);
    let no_json = broken_checkpoint(&scratch, "config.json", |_| b"{".to_vec());
    refuse(&mut convert(&no_json, &output), &["config.json"]);
    refuse(&mut convert(&scratch.path("nowhere"), &output), &["nowhere"]);
    assert_eq!(scratch.names(), ["checkpoint"], "nothing half-written stays");
}

#[test]
fn usage_errors_exit_with_2() {
    let scratch = Scratch::new("usage");
    let mut odd_size = convert(&data("reference/dinov2"), &scratch.path("o.onnx"));
    assert!(fail(odd_size.args(["--size", "100"]), 2).contains("multiples of the patch size"));
    assert!(fail(eomt_edge().args(["convert"]), 2).contains("CHECKPOINT"));
    assert!(fail(eomt_edge().args(["run", "--set", "ring.slot=3"]), 2).contains("slot"));
    assert!(fail(eomt_edge().args(["run", "--source", "rtsp://x"]), 2).contains("rtsp"));
    let config = scratch.path("c.toml");
    std::fs::write(&config, "[ring]\nsockt = \"x\"\n").unwrap();
    assert!(fail(eomt_edge().arg("run").arg("--config").arg(&config), 2).contains("sockt"));
    assert!(fail(eomt_edge().arg("run").arg("--config").arg(scratch.path("none.toml")), 2).contains("none.toml"));
    assert!(fail(eomt_edge().args(["bench", "--threads", "100000", "--model", "m"]), 2).contains("256"));
    assert!(fail(eomt_edge().args(["segment", "--threshold", "2", "--model", "m", "i", "-o", "d"]), 2).contains("0 and 1"));
}

#[test]
fn calibration_needs_pictures_and_int8() {
    let scratch = Scratch::new("calibrate");
    let output = scratch.path("o.onnx");
    let run = |precision: &str, directory: &Path| {
        let mut command = convert(&data("reference/dinov2"), &output);
        command.args(["--precision", precision, "--calibrate"]).arg(directory);
        command
    };
    let empty = scratch.path("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(empty.join("notes.txt"), "no picture").unwrap();
    assert!(fail(&mut run("f32", &data("clip")), 2).contains("--precision int8"));
    assert!(fail(&mut run("int8", &empty), 2).contains("empty"));
    assert!(fail(&mut run("int8", &scratch.path("nowhere")), 2).contains("nowhere"));
    std::fs::write(empty.join("text.png"), "no picture").unwrap();
    refuse(&mut run("int8", &empty), &["text.png", "PNG or JPEG"]);
    assert_eq!(scratch.names(), ["empty"], "nothing half-written stays");
}

#[test]
fn other_files_are_no_models() {
    let scratch = Scratch::new("models");
    let text = scratch.path("text.onnx");
    std::fs::write(&text, "I am a text file, not a network.").unwrap();
    let image = data("reference/processing/pre-0.png");
    let segment = |model: &Path| {
        let mut command = eomt_edge();
        command.args(["segment", "--model"]).arg(model).arg(&image).arg("-o").arg(scratch.path("results"));
        command
    };
    refuse(&mut segment(&text), &["text.onnx", "not an ONNX file"]);
    refuse(&mut segment(&data("other.onnx")), &["other.onnx", "not an EoMT network"]);
    refuse(&mut segment(&scratch.path("missing.onnx")), &["missing.onnx"]);
    let model = std::fs::read(shipped_model()).unwrap();
    let cut = scratch.path("cut.onnx");
    std::fs::write(&cut, &model[..model.len() / 3]).unwrap();
    refuse(&mut segment(&cut), &["cut.onnx"]);
}

#[test]
fn pictures_that_cannot_be_are_refused() {
    let scratch = Scratch::new("pictures");
    let text = scratch.path("text.png");
    std::fs::write(&text, "no picture").unwrap();
    let run = |image: &Path, more: &[&str]| {
        let mut command = eomt_edge();
        command.args(["segment", "--model"]).arg(shipped_model()).arg(image).arg("-o").arg(scratch.path("results")).args(more);
        command
    };
    refuse(&mut run(&text, &[]), &["text.png", "PNG or JPEG"]);
    refuse(&mut run(&scratch.path("none.png"), &[]), &["none.png"]);
    refuse(&mut run(&data("reference/processing/pre-2.png"), &["--max-pixels", "1000"]), &["pre-2.png", "1000"]);
    let cut = scratch.path("cut.png");
    let bytes = std::fs::read(data("reference/processing/pre-2.png")).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    refuse(&mut run(&cut, &[]), &["cut.png"]);
    // a file stands where the directory should be: unwritable for everybody, root included
    std::fs::write(scratch.path("taken"), "").unwrap();
    let mut unwritable = eomt_edge();
    unwritable.args(["segment", "--model"]).arg(shipped_model()).arg(data("reference/processing/pre-0.png"));
    refuse(unwritable.arg("-o").arg(scratch.path("taken/results")), &["taken/results"]);
    let jpeg = scratch.path("cut.jpg");
    image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 3, y as u8 * 3, (x * y) as u8])).save(&jpeg).unwrap();
    let bytes = std::fs::read(&jpeg).unwrap();
    std::fs::write(&jpeg, &bytes[..bytes.len() / 2]).unwrap();
    refuse(&mut run(&jpeg, &[]), &["cut.jpg", "ends before"]);
    assert!(!scratch.path("results").exists(), "not even a directory stays");
}

#[test]
fn outputs_replace_files_only() {
    let scratch = Scratch::new("outputs");
    let socket = scratch.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    refuse(&mut convert(&data("reference/dinov2"), &socket), &["socket", "not a regular file"]);
    refuse(&mut convert(&data("reference/dinov2"), scratch.root()), &["not a regular file"]);
    let checkpoint = broken_checkpoint(&scratch, "config.json", |bytes| bytes);
    let weights = checkpoint.join("model.safetensors");
    let before = std::fs::read(&weights).unwrap();
    assert!(fail(&mut convert(&checkpoint, &weights), 2).contains("part of the checkpoint"));
    assert_eq!(std::fs::read(&weights).unwrap(), before);
    // a link is followed, not replaced
    std::os::unix::fs::symlink(scratch.path("real.onnx"), scratch.path("link.onnx")).unwrap();
    std::fs::write(scratch.path("real.onnx"), "old").unwrap();
    succeed(&mut convert(&data("reference/dinov2"), &scratch.path("link.onnx")));
    assert!(scratch.path("link.onnx").is_symlink() && std::fs::metadata(scratch.path("real.onnx")).unwrap().len() > 1000);
    assert_eq!(scratch.names(), ["checkpoint", "link.onnx", "real.onnx", "socket"]);
}

#[test]
fn a_full_standard_output_is_a_sentence() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut bench = eomt_edge();
    bench.args(["bench", "--frames", "1", "--model"]).arg(shipped_model()).stdout(full);
    refuse(&mut bench, &["standard output"]);
}

#[test]
fn odd_pictures_work() {
    let scratch = Scratch::new("odd");
    let sizes = [(1, 1), (1, 4000), (4000, 1), (7, 3)];
    let mut images = Vec::new();
    for (width, height) in sizes {
        let path = scratch.path(&format!("p{width}x{height}.png"));
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 90])).save(&path).unwrap();
        images.push(path);
    }
    let grey = scratch.path("grey16.png");
    image::ImageBuffer::<image::Luma<u16>, _>::from_fn(50, 40, |x, y| image::Luma([(x * y * 32) as u16])).save(&grey).unwrap();
    images.push(grey);
    let alpha = scratch.path("alpha.png");
    image::RgbaImage::from_pixel(20, 30, image::Rgba([200, 10, 10, 0])).save(&alpha).unwrap();
    images.push(alpha);
    for task in ["panoptic", "instance", "semantic"] {
        let results = scratch.path(task);
        succeed(eomt_edge().args(["segment", "--task", task, "--model"]).arg(shipped_model()).args(&images).arg("-o").arg(&results));
        for (width, height) in sizes {
            let overlay = image::image_dimensions(results.join(format!("p{width}x{height}.overlay.png"))).unwrap();
            let panoptic = image::image_dimensions(results.join(format!("p{width}x{height}.panoptic.png"))).unwrap();
            assert_eq!((overlay, panoptic), ((width, height), (width, height)));
        }
        assert_eq!(std::fs::read_dir(&results).unwrap().count(), 3 * images.len());
    }
}

/// The shipped model on real pictures: all queries or only the survivors, the same files.
#[test]
fn pruning_changes_no_result_file() {
    let scratch = Scratch::new("prune");
    for task in ["panoptic", "instance"] {
        for (name, more) in [("pruned", None), ("all", Some("--all-queries"))] {
            let mut command = eomt_edge();
            command.args(["segment", "--task", task, "--threshold", "0.4", "--model"]).arg(shipped_model());
            for frame in 0..3 {
                command.arg(data(&format!("clip/{frame:06}.png")));
            }
            succeed(command.args(more).arg("-o").arg(scratch.path(&format!("{name}-{task}"))));
        }
        for frame in 0..3 {
            for kind in ["json", "panoptic.png"] {
                let read = |name: &str| std::fs::read(scratch.path(&format!("{name}-{task}/{frame:06}.{kind}"))).unwrap();
                assert_eq!(read("pruned"), read("all"), "{task}, frame {frame}, {kind}");
            }
        }
    }
}

/// Windows see the whole frame: every pixel has a class, and a frame that is square is one window.
#[test]
fn windows_cover_the_frame() {
    let scratch = Scratch::new("windows");
    let run = |image: &Path, name: &str, more: &[&str]| -> Vec<u8> {
        let mut command = eomt_edge();
        command.args(["segment", "--task", "semantic", "--model"]).arg(shipped_model()).arg(image).args(more);
        succeed(command.arg("-o").arg(scratch.path(name)));
        let stem = image.file_stem().unwrap().to_str().unwrap();
        image::open(scratch.path(&format!("{name}/{stem}.panoptic.png"))).unwrap().into_rgb8().into_raw()
    };
    let wide = run(&data("clip/000000.png"), "wide", &["--windows"]);
    assert!(wide.chunks(3).all(|pixel| pixel[0] > 0));
    let square = data("reference/processing/pre-0.png");
    assert_eq!(run(&square, "one", &["--windows"]), run(&square, "none", &[]));
}

#[test]
fn interpolated_sizes_run() {
    let scratch = Scratch::new("sizes");
    let onnx = scratch.path("wide.onnx");
    succeed(convert(&data("reference/dinov2"), &onnx).args(["--size", "64x128"]));
    succeed(eomt_edge().args(["segment", "--model"]).arg(&onnx).arg(data("clip/000000.png")).arg("-o").arg(scratch.path("r")));
    succeed(convert(&data("reference/dinov3"), &onnx).args(["--size", "160x96"]));
    succeed(eomt_edge().args(["segment", "--model"]).arg(&onnx).arg(data("clip/000000.png")).arg("-o").arg(scratch.path("r")));
}

/// What `bench --json` prints on the shipped model, one thread.
fn bench_json(more: &[&str]) -> serde_json::Value {
    bench_json_of(&shipped_model(), more)
}

fn bench_json_of(model: &Path, more: &[&str]) -> serde_json::Value {
    let mut command = eomt_edge();
    command.args(["bench", "--json", "--threads", "1", "--model"]).arg(model).args(more);
    serde_json::from_slice(&succeed(&mut command).stdout).unwrap()
}

#[test]
fn bench_prints_the_agreed_object() {
    let document = bench_json(&["--frames", "2"]);
    for stage in ["preprocess", "infer", "segment", "publish"] {
        for key in ["min_ms", "median_ms", "p95_ms"] {
            assert!(document["stages"][stage][key].is_number(), "{document}");
        }
    }
    let number = |key: &str| document[key].as_f64().unwrap_or_else(|| panic!("{key}: {document}"));
    assert!(document["total"]["median_ms"].as_f64().unwrap() > 0.0 && document["isa"].is_string());
    assert!(number("peak_rss_mib") >= number("rss_after_load_mib") && number("rss_after_load_mib") > 1.0);
    assert!(number("load_to_first_inference_ms") > number("load_ms"));
    assert_eq!((&document["threads"], &document["frames"], &document["precision"]), (&1.into(), &2.into(), &"int8".into()));
    assert_eq!((&document["operators"], &document["compare_ort"]), (&serde_json::Value::Null, &serde_json::Value::Null));
}

/// The operators are the whole network: the multiply-accumulates of all of them are those of the paper's formulas.
#[test]
fn operators_add_up_to_the_network() {
    let document = bench_json(&["--frames", "1", "--operators", "--all-queries"]);
    let operators = document["operators"].as_array().unwrap();
    let sum = |key: &str| operators.iter().map(|operator| operator[key].as_u64().unwrap()).sum::<u64>();
    // models/README.md: 160x160 in patches of 16, a class token and 4 registers, 24 queries in the last 3 of 6 blocks, width 192, 9 classes
    let (patches, queries, width, classes) = (10 * 10, 24, 192, 9 + 1);
    let tokens = [[patches + 5; 3], [patches + 5 + queries; 3]].concat();
    let embedding = patches * 3 * 16 * 16 * width;
    let linears: u64 = tokens.iter().map(|t| t * 12 * width * width).sum(); // qkv, projection, MLP of four times the width
    let attention: u64 = tokens.iter().map(|t| 2 * t * t * width).sum(); // scores, and the mixture of values
    let heads = queries * width * classes + 3 * queries * width * width;
    let scale_blocks = (4 + 16) * patches * (width * width + 9 * width); // a 2x2 transposed and a depthwise 3x3 convolution, twice
    let masks = queries * width * 16 * patches;
    assert_eq!(sum("f32_macs") + sum("int8_macs"), embedding + linears + attention + heads + scale_blocks + masks, "{document}");
    // with matrix registers, MLPs of int8 files multiply bfloat16: two thirds of a block's layers
    let int8 = if document["isa"] == "amx" { linears / 3 } else { linears };
    assert!(sum("int8_macs") >= int8 && operators.iter().all(|operator| operator["count"].as_u64() > Some(0)));
    assert!(document["operators_frame"]["min_ms"].is_number());
    for peak in ["one_thread", "all_threads"] {
        assert!(document["peak"][peak]["f32_gops"].as_f64() > Some(0.0) && document["peak"][peak]["int8_gops"].as_f64() > Some(0.0));
    }
}

#[test]
fn other_files_are_no_onnxruntime() {
    let scratch = Scratch::new("library");
    let text = scratch.path("text.so");
    std::fs::write(&text, "no library").unwrap();
    let bench = |library: &Path| {
        let mut command = eomt_edge();
        command.args(["bench", "--frames", "1", "--threads", "1", "--model"]).arg(shipped_model()).arg("--compare-ort").arg(library);
        command
    };
    refuse(&mut bench(&scratch.path("missing.so")), &["missing.so"]);
    refuse(&mut bench(scratch.root()), &["not a regular file"]);
    refuse(&mut bench(&text), &["text.so", "no library"]);
}

/// With the library that `EOMT_EDGE_TEST_ORT` names: the same network, so nearly the same numbers.
#[test]
fn onnxruntime_agrees() {
    let Some(library) = std::env::var_os("EOMT_EDGE_TEST_ORT") else { return };
    let scratch = Scratch::new("onnxruntime");
    let video = scratch.path("videomt.onnx");
    succeed(eomt_edge().arg("convert").arg(data("videomt/transformers")).arg("-o").arg(&video));
    for model in [pytorch_model(&scratch), video] {
        onnxruntime_agrees_on(&model, &library);
    }
}

fn onnxruntime_agrees_on(model: &Path, library: &OsStr) {
    let document = bench_json_of(model, &["--frames", "2", "--compare-ort", library.to_str().unwrap()]);
    let comparison = &document["compare_ort"];
    for key in ["ratio_min", "ratio_median"] {
        assert!(comparison[key].as_f64() > Some(0.0), "{document}");
    }
    for side in ["ours", "ort", "ours_pruned"] {
        assert!(comparison[side]["min_ms"].as_f64() > Some(0.0) && comparison[side]["median_ms"].is_number(), "{document}");
    }
    for output in ["class", "masks"] {
        assert!(comparison["mean_relative_difference"][output].as_f64() < Some(1e-4), "{document}");
    }
    assert!(comparison["library_version"].is_string());
}

#[test]
fn an_instruction_set_is_one_that_there_is() {
    use eomt_edge_core::kernels::arch::{ISAS, Isa};
    let bench = |isa: &str| {
        let mut command = eomt_edge();
        command.args(["bench", "--mark", "--frames", "1", "--threads", "1", "--isa", isa, "--model"]).arg(shipped_model());
        command
    };
    assert!(fail(&mut bench("nonsense"), 2).contains("avx512vnni"));
    assert!(fail(eomt_edge().args(["bench", "--model"]).arg(shipped_model()).env("EOMT_EDGE_ISA", "sse9"), 2).contains("sse9"));
    succeed(bench("auto").env("EOMT_EDGE_ISA", "sse9")); // the command line wins
    // under an emulator the program sees another CPU than this test
    let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    assert!(fail(&mut bench(foreign), 2).contains(foreign));
    if std::env::var_os("EOMT_EDGE_TEST_RUNNER").is_none() {
        for isa in ISAS.into_iter().filter(|isa| Isa::named(Some(isa)).is_ok()) {
            let output = succeed(&mut bench(isa));
            assert!(String::from_utf8_lossy(&output.stdout).contains(isa), "the program says what it runs");
        }
    }
}

#[test]
fn doctor_names_what_the_configuration_names_and_the_machine_lacks() {
    let scratch = Scratch::new("doctor");
    let config = scratch.path("eomt-edge.toml");
    let doctor = |text: &str| {
        std::fs::write(&config, text).unwrap();
        let output = eomt_edge().arg("doctor").arg("--config").arg(&config).arg("--model").arg(shipped_model()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for (text, problem) in [
        ("[source]\nuri = \"v4l2:/dev/video-not-here\"\n", "PROBLEM: source.uri: /dev/video-not-here is not there"),
        ("[source]\nuri = \"v4l2:/dev/null\"\n", "PROBLEM: source.uri: /dev/null: it is no V4L2 device"),
        ("[source]\nuri = \"replay:/not/here\"\n", "PROBLEM: source.uri: /not/here is no directory"),
        (
            "[source]\nuri = \"scenes\"\n[display]\nkind = \"oled\"\ndevice = \"/dev/i2c-not-here\"\n",
            "PROBLEM: display.device: /dev/i2c-not-here",
        ),
        (
            "[source]\nuri = \"scenes\"\n[display]\nkind = \"spi\"\ngpio_chip = \"/dev/gpio-not-here\"\n",
            "PROBLEM: display.gpio_chip: /dev/gpio-not-here",
        ),
        ("[source]\nuri = \"scenes\"\n[ring]\ngroup = \"no-such-group\"\n", "PROBLEM: ring.group:"),
        ("[source]\nuri = \"scenes\"\nsise = 3\n", "sise"),
    ] {
        let (code, report) = doctor(text);
        assert_eq!(code, Some(1), "{report}");
        assert!(report.contains(problem), "'{problem}' is missing in:\n{report}");
    }
    let (_, report) = doctor("[source]\nuri = \"scenes\"\n");
    assert!(
        !report.contains("PROBLEM: source") && !report.contains("PROBLEM: display") && !report.contains("PROBLEM: ring.group"),
        "{report}"
    );
}
