//! `train` and `scenes` as programs: killed and resumed, refused in words, and on a folder that the program itself drew.
#![cfg(feature = "train")]

mod common;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Scratch, eomt_edge, fail, succeed};

/// A small network on procedural scenes: some seconds.
const SMALL: &str =
    "--size 32 --patch 8 --width 24 --heads 2 --blocks 3 --query-blocks 2 --queries 9 --batch 4 --points 64 --save-every 2 --lr 2e-3";

fn train(output: &Path, steps: u32) -> Command {
    train_with(output, steps, SMALL)
}

fn train_with(output: &Path, steps: u32, options: &str) -> Command {
    let mut command = eomt_edge();
    command.arg("train").arg("-o").arg(output).args(["--steps", &steps.to_string()]).args(options.split(' '));
    command
}

fn draw(directory: &Path, count: u32, seed: u32) {
    succeed(eomt_edge().arg("scenes").arg(directory).args(["--size", "64", "--count", &count.to_string(), "--seed", &seed.to_string()]));
}

fn pictures(command: &mut Command, folder: &Path) {
    command.arg("--images").arg(folder.join("images")).arg("--panoptic-json").arg(folder.join("panoptic.json"));
    command.arg("--panoptic-dir").arg(folder.join("panoptic"));
}

/// A ground truth of fewer classes is the whole one without the others: same pictures, same segments of the kept classes, and a reader
/// that refuses ids without a segment takes it.
#[test]
fn scenes_of_few_classes_say_nothing_of_the_rest() {
    let scratch = Scratch::new("scenes-classes");
    let (all, few) = (scratch.path("all"), scratch.path("few"));
    draw(&all, 3, 5);
    succeed(eomt_edge().arg("scenes").arg(&few).args(["--size", "64", "--count", "3", "--seed", "5", "--classes", "wall,box"]));
    let list =
        |folder: &Path| -> serde_json::Value { serde_json::from_slice(&std::fs::read(folder.join("panoptic.json")).unwrap()).unwrap() };
    let (all_list, few_list) = (list(&all), list(&few));
    let names: Vec<_> = few_list["categories"].as_array().unwrap().iter().map(|category| category["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["box", "wall"]);
    for index in 0..3 {
        let name = format!("images/{index:06}.png");
        assert_eq!(std::fs::read(all.join(&name)).unwrap(), std::fs::read(few.join(&name)).unwrap());
        let segments = |list: &serde_json::Value| list["annotations"][index]["segments_info"].as_array().unwrap().clone();
        let mut wanted = segments(&all_list);
        wanted.retain(|segment| [2, 8].contains(&segment["category_id"].as_u64().unwrap())); // box, wall
        assert_eq!(segments(&few_list), wanted);
    }
    let mut evaluate = eomt_edge();
    evaluate.args(["evaluate", "--json", "--panoptic-json"]).arg(few.join("panoptic.json"));
    evaluate.arg("--panoptic-dir").arg(few.join("panoptic")).arg("--predictions").arg(few.join("panoptic"));
    evaluate.arg("--predictions-json").arg(few.join("panoptic.json"));
    let scores: serde_json::Value = serde_json::from_slice(&succeed(&mut evaluate).stdout).unwrap();
    assert_eq!(scores["all"]["pq"], 1.0);
}

/// A degraded scene is another picture with the same ground truth, the same each time.
#[test]
fn degraded_scenes_keep_their_truth() {
    let scratch = Scratch::new("scenes-degraded");
    let folders = ["plain", "bad", "again"].map(|name| scratch.path(name));
    for (folder, degrade) in folders.iter().zip(["0", "1", "1"]) {
        succeed(eomt_edge().arg("scenes").arg(folder).args(["--size", "64", "--count", "2", "--seed", "5", "--degrade", degrade]));
    }
    let [plain, bad, again] = folders
        .map(|folder| ["images/000001.png", "panoptic/000001.png", "panoptic.json"].map(|name| std::fs::read(folder.join(name)).unwrap()));
    assert!(plain[1..] == bad[1..] && plain[0] != bad[0] && bad == again);
    let mean = |png: &[u8]| {
        let levels = image::load_from_memory(png).unwrap().into_rgb8().into_raw();
        levels.iter().map(|level| f64::from(*level)).sum::<f64>() / levels.len() as f64
    };
    assert!(mean(&bad[0]) < 0.95 * mean(&plain[0]), "darker: {} and {}", mean(&bad[0]), mean(&plain[0]));
    assert!(fail(eomt_edge().arg("scenes").arg(scratch.path("no")).args(["--degrade", "2"]), 2).contains("between 0 and 1"));
}

/// A pipe that holds a single line: who writes the next one waits until this one is read (packet mode of pipe(2)), however fast the
/// machine is.
fn line_by_line() -> (std::fs::File, std::fs::File) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::DIRECT | rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    rustix::pipe::fcntl_setpipe_size(&write, 4096).expect("one page");
    (read.into(), write.into())
}

/// What `train --validate` says of held-out pictures is what `evaluate` measures on the best checkpoint; the others alone are learned from, and a resumed run
/// has the same scores.
#[test]
fn the_best_checkpoint_is_the_one_that_evaluate_finds_best() {
    let scratch = Scratch::new("train-validate");
    let drawn = scratch.path("drawn");
    draw(&drawn, 12, 5);
    let (whole, cut) = (scratch.path("whole"), scratch.path("cut"));
    let run = |output: &Path, held_out: &str| {
        let mut command = eomt_edge();
        command.arg("train").arg("-o").arg(output).arg("--from").arg(common::data("nano"));
        command.args("--steps 3 --batch 2 --points 64 --save-every 1 --lr 1e-3 --warmup 0,0 --validate".split(' ')).arg(held_out);
        pictures(&mut command, &drawn);
        command
    };
    let said = String::from_utf8(succeed(&mut run(&whole, "4")).stdout).unwrap();
    assert!(said.contains("9 annotated images") && said.contains("one of 4 held out") && said.contains("evaluate --held-out 4"), "{said}");
    let csv = |output: &Path| std::fs::read_to_string(output.join("validation.csv")).unwrap();
    let scores: Vec<(u64, f64)> = csv(&whole)
        .lines()
        .skip(1)
        .map(|line| line.split_once(',').map(|(step, score)| (step.parse().unwrap(), score.parse().unwrap())).unwrap())
        .collect();
    assert_eq!(scores.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let (step, best) = scores.iter().copied().reduce(|best, next| if next.1 > best.1 { next } else { best }).unwrap();
    assert!(said.contains(&format!("best after {step} steps, {:.2}", 100.0 * best)), "{said}");
    let model = scratch.path("best.onnx");
    succeed(eomt_edge().arg("convert").arg(whole.join("best")).arg("-o").arg(&model).args(["--stuff", "floor,wall,sky"]));
    let mut evaluate = eomt_edge();
    evaluate.args(["evaluate", "--json", "--held-out", "4", "--model"]).arg(&model);
    pictures(&mut evaluate, &drawn);
    let found: serde_json::Value = serde_json::from_slice(&succeed(&mut evaluate).stdout).unwrap();
    assert_eq!((found["images"].as_u64(), found["all"]["pq"].as_f64()), (Some(3), Some(best)));
    for page in ["index.html", "validation/index.html"] {
        assert!(std::fs::read_to_string(whole.join(page)).unwrap().contains("</html>"), "{page}");
    }
    // a run that ends after its first states is another recipe, so this one is killed: what is left is a state and its scores
    let mut child = run(&cut, "4").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    let begun = Instant::now();
    while !cut.join("state.safetensors").exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no state in two minutes");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("it can be waited for");
    succeed(&mut run(&cut, "4"));
    assert_eq!(csv(&cut), csv(&whole));
    assert!(std::fs::read(cut.join("best/model.safetensors")).unwrap() == std::fs::read(whole.join("best/model.safetensors")).unwrap());
    let refused = fail(&mut run(&scratch.path("none"), "13"), 2);
    assert!(refused.contains("--validate 13") && refused.contains("12 pictures"), "{refused}");
}

/// `kill -9` whenever a state has appeared, until the run gets through: the same files as a run that was left alone.
#[test]
fn killed_runs_end_as_others_do() {
    let scratch = Scratch::new("train-killed");
    let (whole, cut) = (scratch.path("whole"), scratch.path("cut"));
    let drawn = scratch.path("drawn");
    draw(&drawn, 10, 5);
    let command = |output: &Path| {
        let mut command = train(output, 12);
        pictures(&mut command, &drawn);
        command
    };
    succeed(&mut command(&whole));
    let state = cut.join("state.safetensors");
    let modified = || std::fs::metadata(&state).and_then(|meta| meta.modified()).ok();
    // Each kill finds the run one or two of its six states further on.
    for _ in 0..2 {
        let before = modified();
        let (mut said, stdout) = line_by_line();
        let mut child = command(&cut).stdout(stdout).stderr(Stdio::null()).spawn().expect("the program starts");
        while modified() == before {
            assert!(said.read(&mut [0; 4096]).expect("a pipe") > 0, "it ends without a new state");
        }
        assert!(child.try_wait().expect("it can be waited for").is_none(), "it waits for its reader");
        child.kill().expect("SIGKILL");
        child.wait().expect("it can be waited for");
    }
    succeed(&mut command(&cut));
    for name in ["model.safetensors", "curves.csv", "config.json", "preprocessor_config.json"] {
        let read = |directory: &Path| std::fs::read(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(read(&whole) == read(&cut), "{name} differs");
    }
    let leftovers: Vec<_> = std::fs::read_dir(&cut).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok()).collect();
    // A killed writer may leave its temporary file behind; nothing reads it.
    assert!(leftovers.iter().filter(|name| !name.ends_with(".part")).count() == 7, "{leftovers:?}");
}

/// Each state has its checkpoint, whose probabilities of masked attention are those of the given spans; a run from it
/// anneals the blocks that are left.
#[test]
fn a_checkpoint_says_how_far_its_masks_are_annealed() {
    let scratch = Scratch::new("train-anneal");
    let (run, next) = (scratch.path("run"), scratch.path("next"));
    let probabilities = |folder: &Path| common::floats(&folder.join("model.safetensors"), "attn_mask_probs").1;
    succeed(train(&run, 4).args(["--scenes", "1", "--anneal", "0-0,2-4", "--anneal-power", "1"]));
    assert_eq!(probabilities(&run), [0.0, 0.0]);
    // the same steps of a run that masks the second block for longer
    let half = scratch.path("half");
    let mut command = train(&half, 8);
    command.args(["--scenes", "1", "--anneal", "0-2,2-8", "--anneal-power", "1"]).stdout(Stdio::null());
    let mut child = command.spawn().expect("the program starts");
    let deadline = Instant::now() + Duration::from_secs(120);
    while !half.join("config.json").exists() {
        assert!(Instant::now() < deadline, "no checkpoint in two minutes");
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill(); // it may have ended just now
    child.wait().expect("it can be waited for");
    let [first, second] = probabilities(&half)[..] else { panic!("two blocks") };
    let expected = [2.0, 4.0, 6.0, 8.0].map(|step: f32| 1.0 - (step - 2.0) / 6.0);
    assert!(first == 0.0 && expected.iter().any(|p| (p - second).abs() < 1e-6), "{first} {second}");
    let mut command = eomt_edge();
    command.arg("train").arg("-o").arg(&next).arg("--from").arg(&half);
    succeed(command.args(["--scenes", "1", "--steps", "2", "--batch", "2", "--points", "64", "--save-every", "1"]));
    assert_eq!(probabilities(&next), [0.0, 0.0]);
}

/// Fine-tuning for a subset of the classes in another order, then converting and running what came out.
#[test]
fn a_checkpoint_learns_other_classes_and_converts() {
    let scratch = Scratch::new("train-classes");
    let drawn = scratch.path("drawn");
    draw(&drawn, 6, 6);
    let list = drawn.join("panoptic.json");
    let text = std::fs::read_to_string(&list).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    // Another order, a new name for the floor, and no other class: their segments are taken out of the list and stay in the PNGs.
    document["categories"] = serde_json::json!([
        { "id": 8, "name": "wall", "isthing": 0 },
        { "id": 1, "name": "ball", "isthing": 1 },
        { "id": 7, "name": "ground", "isthing": 0 },
    ]);
    for annotation in document["annotations"].as_array_mut().unwrap() {
        let segments = annotation["segments_info"].as_array_mut().unwrap();
        segments.retain(|segment| [1, 7, 8].contains(&segment["category_id"].as_u64().unwrap()));
    }
    std::fs::write(&list, document.to_string()).unwrap();
    let base = scratch.path("base");
    succeed(train(&base, 2).args(["--scenes", "1"]));
    let tuned = scratch.path("tuned");
    let mut command = eomt_edge();
    command
        .arg("train")
        .arg("-o")
        .arg(&tuned)
        .arg("--from")
        .arg(&base)
        .args(["--steps", "3", "--batch", "4", "--points", "64", "--lr", "1e-5"]);
    pictures(&mut command, &drawn);
    succeed(&mut command);
    let model = scratch.path("tuned.onnx");
    let mut convert = eomt_edge();
    convert.arg("convert").arg(&tuned).arg("-o").arg(&model).args(["--stuff", "ground,wall", "--no-check"]);
    succeed(&mut convert);
    let config = std::fs::read_to_string(tuned.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["id2label"], serde_json::json!({ "0": "wall", "1": "ball", "2": "ground" }));
    // The rows of the class head came along with their names; three steps of warm-up have hardly moved them.
    let row = |folder: &Path, class: usize| {
        common::floats(&folder.join("model.safetensors"), "class_predictor.weight").1[class * 24..][..24].to_vec()
    };
    assert!(common::largest_difference(&row(&base, 7), &row(&tuned, 0)) < 1e-4, "wall");
    assert!(common::largest_difference(&row(&base, 0), &row(&tuned, 1)) < 1e-4, "ball");
    assert!(common::largest_difference(&row(&base, 6), &row(&tuned, 2)) > 1e-3, "ground starts anew");
}

#[test]
fn bad_input_gets_a_sentence() {
    let scratch = Scratch::new("train-bad");
    let nothing = scratch.path("nothing");
    let says = |command: &mut Command, code: i32, words: &[&str]| {
        let problem = fail(command, code);
        assert!(words.iter().all(|word| problem.contains(word)), "{problem}");
        assert!(!problem.contains("panicked"), "{problem}");
    };
    let output = scratch.path("run");
    says(train_with(&output, 1, &SMALL.replace("--heads 2", "--heads 5")).args(["--scenes", "1"]), 1, &["24", "5 heads"]);
    says(train_with(&output, 1, &SMALL.replace("--size 32", "--size 30")).args(["--scenes", "1"]), 1, &["30", "patch"]);
    says(train(&output, 0).args(["--scenes", "1", "--validate", "4"]), 2, &["--steps 0", "--validate"]);
    says(train(&output, 1).args(["--scenes", "1", "--scale", "2,1"]), 2, &["--scale"]);
    says(train(&output, 9).args(["--scenes", "1", "--anneal", "0-3"]), 2, &["--anneal", "1 spans for 2 blocks"]);
    says(train(&output, 9).args(["--scenes", "1", "--anneal", "0-3,4-10"]), 2, &["4-10", "9 steps"]);
    says(train(&output, 9).args(["--scenes", "1", "--anneal", "0-3,4"]), 2, &["START-END"]);
    says(train(&output, 9).args(["--scenes", "1", "--anneal", "0-3,4-5", "--masking", "kept"]), 2, &["--masking annealed"]);
    says(&mut train(&output, 1), 2, &["--scenes"]);
    let mut missing = train(&output, 1);
    pictures(&mut missing, &nothing);
    says(&mut missing, 1, &["panoptic.json"]);
    let mut from = eomt_edge();
    from.arg("train").arg("-o").arg(&output).args(["--scenes", "1", "--from"]).arg(&nothing);
    says(&mut from, 1, &["nothing"]);
    let mut video = eomt_edge();
    video.arg("train").arg("-o").arg(&output).args(["--scenes", "1", "--from"]).arg(common::data("videomt/transformers"));
    says(&mut video, 2, &["videomt", "VidEoMT", "--video"]);
    let clips = |output: &Path, options: &[&str]| {
        let mut command = eomt_edge();
        command.arg("train").arg("-o").arg(output).arg("--video").arg(common::data("video")).args(options);
        command
    };
    says(&mut clips(&output, &["--validate", "4"]), 2, &["--validate", "--video"]);
    says(&mut clips(&output, &["--frames", "1"]), 2, &["--frames 1"]);
    says(train(&output, 1).args(["--scenes", "1", "--frames", "3"]), 2, &["--video"]);
    assert!(!output.exists(), "nothing was to be left behind");
    let drawn = scratch.path("drawn");
    draw(&drawn, 1, 1);
    says(eomt_edge().arg("scenes").arg(&drawn), 1, &["panoptic.json", "already"]);
    says(eomt_edge().arg("scenes").arg(&output).args(["--classes", "box,tree"]), 1, &["tree", "ball, box"]);
    assert!(!output.exists());
    std::fs::create_dir_all(&output).unwrap();
    std::fs::write(output.join("state.safetensors"), "no state").unwrap();
    says(train(&output, 1).args(["--scenes", "1"]), 1, &["state.safetensors", "not the state"]);
}

/// What `scenes` writes scores perfectly as a prediction of itself.
#[test]
fn drawn_scenes_are_a_sound_dataset() {
    let scratch = Scratch::new("train-scenes");
    let drawn = scratch.path("drawn");
    draw(&drawn, 5, 9);
    let mut evaluate = eomt_edge();
    evaluate.args(["evaluate", "--json", "--panoptic-json"]).arg(drawn.join("panoptic.json"));
    evaluate.arg("--panoptic-dir").arg(drawn.join("panoptic")).arg("--predictions").arg(drawn.join("panoptic"));
    evaluate.arg("--predictions-json").arg(drawn.join("panoptic.json"));
    let scores: serde_json::Value = serde_json::from_slice(&succeed(&mut evaluate).stdout).unwrap();
    assert_eq!((scores["images"].as_u64(), scores["all"]["pq"].as_f64()), (Some(5), Some(1.0)), "{scores}");
}

/// A checkpoint of patch 8 trains on with patch 16 and another input; what comes out converts, and its masks have the old resolution.
#[test]
fn a_checkpoint_goes_on_with_larger_patches() {
    let scratch = Scratch::new("train-patch");
    let (first, second, model) = (scratch.path("first"), scratch.path("second"), scratch.path("second.onnx"));
    succeed(train(&first, 1).args(["--scenes", "1"]));
    let options = "--patch 16 --size 64 --batch 2 --points 64 --scenes 2 --from";
    succeed(train_with(&second, 1, options).arg(&first));
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(second.join("config.json")).unwrap()).unwrap();
    let number = |key: &str| config[key].as_u64().unwrap();
    assert_eq!([number("patch_size"), number("image_size"), number("num_upscale_blocks")], [16, 64, 2]);
    succeed(eomt_edge().arg("convert").arg(&second).arg("-o").arg(&model));
    let refused = fail(train_with(&scratch.path("third"), 1, "--patch 24 --scenes 2 --from").arg(&first), 1);
    assert!(refused.contains("first: this checkpoint cannot be trained") && refused.contains("no multiple of the patch"), "{refused}");
}

/// A backbone without heads is no model yet: `convert` says what to do, `train` does it, and `convert` takes the result.
#[test]
fn a_backbone_is_trained_first() {
    let scratch = Scratch::new("train-backbone");
    let (output, model) = (scratch.path("run"), scratch.path("model.onnx"));
    for backbone in ["dinov2", "dinov2-registers", "dinov3", "meta-dinov3.pth"] {
        let path = common::data("backbones").join(backbone);
        let refused = fail(eomt_edge().arg("convert").arg(&path).arg("-o").arg(&model), 1);
        assert!(refused.contains("without queries and heads") && refused.contains("eomt-edge train -o RUN --from"), "{refused}");
    }
    assert!(!model.exists());
    let options = "--queries 9 --query-blocks 2 --size 48 --batch 2 --points 64 --scenes 1 --from";
    succeed(train_with(&output, 2, options).arg(common::data("backbones/dinov3")));
    succeed(eomt_edge().arg("convert").arg(&output).arg("-o").arg(&model));
    assert_eq!(common::floats(&output.join("model.safetensors"), "query.weight").0, [9, 16]);
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(output.join("preprocessor_config.json")).unwrap()).unwrap();
    let mean: Vec<f64> = config["image_mean"].as_array().unwrap().iter().map(|mean| mean.as_f64().unwrap()).collect();
    assert!((mean[2] - 0.296).abs() < 1e-6, "the backbone's pictures are normalized with its own mean: {mean:?}");
    let again = scratch.path("again");
    let refused = fail(train_with(&again, 2, "--queries 9 --scenes 1 --from").arg(&output), 2);
    assert!(refused.contains("its own 9 queries in 2 blocks"), "{refused}");
    // what is no such backbone is named
    let other = scratch.path("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::copy(common::data("backbones/dinov3/model.safetensors"), other.join("model.safetensors")).unwrap();
    std::fs::write(other.join("config.json"), r#"{"model_type": "vit"}"#).unwrap();
    let refused = fail(train_with(&again, 2, "--scenes 1 --from").arg(&other), 1);
    assert!(refused.contains("config.json") && refused.contains("\"vit\"") && refused.contains("dinov3_vit"), "{refused}");
    std::fs::write(other.join("config.json"), r#"{"model_type": "dinov3_vit", "hidden_size": 16, "num_attention_heads": 2}"#).unwrap();
    let refused = fail(train_with(&again, 2, "--scenes 1 --from").arg(&other), 1);
    assert!(refused.contains("num_hidden_layers") && refused.contains("the weights hold 3"), "{refused}");
    assert!(!again.exists(), "nothing was to be left behind");
}

/// A network for single pictures learns to carry its queries from clips; the model that comes out runs over clips.
#[test]
fn clips_make_a_network_for_video() {
    let scratch = Scratch::new("train-video");
    let (clips, single, video, model) = (scratch.path("clips"), scratch.path("single"), scratch.path("video"), scratch.path("video.onnx"));
    for seed in ["1", "2"] {
        let options = ["scenes", "--clip", "--count", "4", "--size", "64", "--pan", "0.3", "--seed", seed];
        succeed(eomt_edge().args(options).arg(clips.join(seed)));
    }
    succeed(train(&single, 1).args(["--scenes", "1"]));
    let options = "--frames 3 --batch 2 --points 64 --video";
    let said = succeed(train_with(&video, 2, options).arg(&clips).arg("--from").arg(&single));
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("2 clips, 4 windows of 3 frames"), "{said}");
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(video.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["model_type"], "videomt");
    succeed(eomt_edge().arg("convert").arg(&video).arg("-o").arg(&model).args(["--stuff", "floor,wall,sky"]));
    let scores = succeed(eomt_edge().args(["evaluate", "--json", "--video"]).arg(&clips).arg("--model").arg(&model));
    let scores: serde_json::Value = serde_json::from_slice(&scores.stdout).unwrap();
    assert!(scores.to_string().contains("vpq"), "{scores}");
    let refused =
        fail(train_with(&scratch.path("masked"), 2, "--frames 3 --masking annealed --video").arg(&clips).arg("--from").arg(&video), 2);
    assert!(refused.contains("--masking") && refused.contains("video"), "{refused}");
}
