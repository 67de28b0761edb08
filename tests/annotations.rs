//! Annotations as real tools export them (tests/data/annotations/make_annotations.py), read by `evaluate` and `train`: the same objects
//! score the same whatever the format, equal to pycocotools; what cannot be honoured is refused or named in a warning.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use common::{Scratch, data, eomt_edge, succeed};

fn evaluate(arguments: &[&str]) -> Command {
    let mut command = eomt_edge();
    command.arg("evaluate").arg("--json").args(arguments).current_dir(data("annotations"));
    command
}

fn scores(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn warnings(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn read(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&std::fs::read(path.as_ref()).expect("readable")).expect("JSON")
}

/// Fails with `code` and one sentence that holds every word.
fn refuse(command: &mut Command, code: i32, words: &[&str]) {
    let output = command.output().expect("the program starts");
    let sentence = warnings(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {sentence}");
    assert!(!sentence.contains("panicked"), "{sentence}");
    let last = sentence.trim_end().lines().last().unwrap_or_default();
    words
        .iter()
        .for_each(|word| assert!(last.contains(word) || (code == 2 && sentence.contains(word)), "'{word}' is missing in: {sentence}"));
}

fn agrees(found: &Value, folder: &str) {
    let wanted = read(data("annotations").join(folder).join("expected.json"));
    for key in ["ap", "ap50"] {
        let (found, wanted) = (found[key].as_f64().unwrap(), wanted[key].as_f64().unwrap());
        assert!((found - wanted).abs() < 1e-9, "{folder}: {key} {found}, and pycocotools has {wanted}");
    }
}

/// Label Studio's ids begin with 0, which pycocotools loses; the expectation has ids from 1.
#[test]
fn instances_of_every_tool_score_as_pycocotools() {
    for (folder, file) in [("datumaro", "instances_train.json"), ("labelme", "dataset.json"), ("label-studio", "result.json")] {
        let (truth, found) = (format!("{folder}/{file}"), format!("{folder}/results.json"));
        let output = succeed(&mut evaluate(&["--instances", &truth, "--predictions", &found]));
        agrees(&scores(&output), folder);
    }
    assert_eq!(read(data("annotations/label-studio/result.json"))["annotations"][0]["id"], 0);
}

/// datumaro writes masks as crowds: nothing would have to be found.
#[test]
fn a_set_of_crowds_is_refused_unless_they_are_objects() {
    let arguments = ["--instances", "datumaro-masks/instances_train.json", "--predictions", "datumaro-masks/results.json"];
    refuse(&mut evaluate(&arguments), 1, &["instances_train.json", "all 5 objects are crowds", "--crowds objects"]);
    let output = succeed(evaluate(&arguments).args(["--crowds", "objects"]));
    agrees(&scores(&output), "datumaro-masks");
}

/// A ground truth made from a recorded one by a change.
fn changed(scratch: &Scratch, name: &str, file: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut document = read(data("annotations").join(file));
    change(&mut document);
    let path = scratch.path(&format!("{name}.json"));
    std::fs::write(&path, document.to_string()).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn unusable_instances_are_named() {
    let scratch = Scratch::new("annotations-unusable");
    let run = |name: &str, change: &dyn Fn(&mut Value)| {
        let truth = changed(&scratch, name, "datumaro/instances_train.json", change);
        evaluate(&["--instances", &truth, "--predictions", "datumaro/results.json"])
    };
    let each =
        |document: &mut Value, change: &dyn Fn(&mut Value)| document["annotations"].as_array_mut().unwrap().iter_mut().for_each(change);
    let boxes = |document: &mut Value| each(document, &|object| object["segmentation"] = json!([]));
    refuse(&mut run("boxes", &boxes), 1, &["boxes.json", "none of its 5 annotations has a mask", "polygons"]);
    let poses = |document: &mut Value| {
        each(document, &|object| {
            object["keypoints"] = json!([1, 2, 2]);
            object.as_object_mut().unwrap().remove("segmentation");
        });
    };
    refuse(&mut run("poses", &poses), 1, &["poses.json", "keypoints without a mask"]);
    let short = |document: &mut Value| each(document, &|object| object["segmentation"] = json!([[1, 2, 3, 4]]));
    refuse(&mut run("short", &short), 1, &["short.json", "none of its 5"]);
    refuse(&mut run("empty", &|document| document["annotations"] = json!([])), 1, &["empty.json", "no annotations"]);
    let unknown = |document: &mut Value| document["annotations"][0]["category_id"] = json!(9);
    refuse(&mut run("unknown", &unknown), 1, &["unknown.json", "a.one two.png", "unknown category 9"]);
    let odd = |document: &mut Value| document["annotations"][0]["segmentation"] = json!([[1, 2, 3, 4, 5, 6, 7]]);
    refuse(&mut run("odd", &odd), 1, &["odd.json", "a.one two.png", "7 numbers"]);
    let runs = |size: Value, counts: Value| {
        move |document: &mut Value| document["annotations"][0]["segmentation"] = json!({ "size": size, "counts": counts })
    };
    refuse(&mut run("turned", &runs(json!([48, 36]), json!([1728]))), 1, &["a.one two.png", "36x48", "48x36"]);
    refuse(&mut run("stops", &runs(json!([36, 48]), json!([10, 20]))), 1, &["a.one two.png", "30 pixels", "48x36"]);
    refuse(&mut run("overruns", &runs(json!([36, 48]), json!([10, 2000]))), 1, &["a.one two.png", "broken"]);
    let twice = |document: &mut Value| document["images"][1]["file_name"] = document["images"][0]["file_name"].clone();
    refuse(&mut run("twice", &twice), 1, &["twice.json", "same file_name", "a.one two.png"]);
    let lost = |document: &mut Value| document["annotations"][0]["image_id"] = json!(77);
    refuse(&mut run("lost", &lost), 1, &["lost.json", "image 77"]);
    // files of another kind
    let kind = |truth: &str| evaluate(&["--instances", truth, "--predictions", "datumaro/results.json"]);
    refuse(&mut kind("datumaro-masks/panoptic_train.json"), 1, &["panoptic_train.json", "--panoptic-json"]);
    refuse(&mut kind("labelme/raw.json"), 1, &["raw.json", "LabelMe"]);
    refuse(&mut kind("label-studio/raw.json"), 1, &["raw.json", "Label Studio", "COCO"]);
    refuse(&mut kind("images/b.png"), 1, &["b.png", "not the JSON"]);
}

#[test]
fn what_is_left_out_is_told_by_name() {
    let scratch = Scratch::new("annotations-warnings");
    let run = |name: &str, change: &dyn Fn(&mut Value)| {
        let truth = changed(&scratch, name, "datumaro/instances_train.json", change);
        succeed(&mut evaluate(&["--instances", &truth, "--predictions", "datumaro/results.json"]))
    };
    let told = |output: &Output, words: &[&str]| {
        let text = warnings(output);
        words.iter().for_each(|word| assert!(text.contains(word), "'{word}' is missing in: {text}"));
    };
    told(&run("box", &|document| document["annotations"][0]["segmentation"] = json!([])), &["1 annotations have no mask", "a.one two.png"]);
    let half = |document: &mut Value| document["annotations"].as_array_mut().unwrap().retain(|object| object["image_id"] == 1);
    told(&run("half", &half), &["1 pictures show no object", "b.png"]);
    let outside = |document: &mut Value| document["annotations"][0]["segmentation"] = json!([[100, 100, 120, 100, 120, 130]]);
    told(&run("outside", &outside), &["a.one two.png", "no pixel on the picture"]);
    // Roboflow's root category, which no model has; areas as of boxes; an annotation id twice: the scores stay
    let output = run("root", &|document| {
        let categories = document["categories"].as_array_mut().unwrap();
        categories.iter_mut().for_each(|category| category["supercategory"] = json!("pets"));
        categories.insert(0, json!({ "id": 0, "name": "pets", "supercategory": "none" }));
        document["annotations"][0]["area"] = json!(5000);
        document["annotations"][1]["id"] = document["annotations"][0]["id"].clone();
    });
    told(&output, &["category 0 (pets)", "no class", "its area in the file is 5000"]);
    agrees(&scores(&output), "datumaro");
    assert_eq!(scores(&output)["per_class"].as_object().unwrap().len(), 2);
}

#[test]
fn yolo_polygons_are_the_same_objects() {
    // results by names of categories: the ids of YOLO's classes begin with 0
    let scratch = Scratch::new("annotations-yolo");
    let mut results = read(data("annotations/label-studio/results.json"));
    let folder = |name: &str| data("annotations/yolo/valid/images").join(name).to_string_lossy().into_owned();
    for object in results.as_array_mut().unwrap() {
        object["image_id"] = json!(folder(if object["image_id"] == 0 { "a.one two.png" } else { "b.png" }));
    }
    let found = scratch.path("results.json");
    std::fs::write(&found, results.to_string()).unwrap();
    let yolo = data("annotations/yolo");
    for place in [yolo.join("data.yaml"), yolo.clone()] {
        let arguments = ["--yolo", place.to_str().unwrap(), "--predictions", found.to_str().unwrap()];
        agrees(&scores(&succeed(&mut evaluate(&arguments))), "label-studio");
    }
    for (option, value, owner) in [
        ("--crowds", "objects", "--instances"),
        ("--split", "val", "--yolo"),
        ("--suffixes", "a,b", "--class-maps"),
        ("--class-names", "voc", "--class-maps"),
        ("--class-values", "1,2", "--class-maps"),
        ("--label-offset", "1", "--class-maps"),
        ("--ignore-label", "0", "--class-maps"),
    ] {
        let arguments = ["--predictions", "images", "--anomaly-dir", "images", option, value];
        refuse(&mut evaluate(&arguments), 2, &[option, owner]);
    }
    for (option, value, owner) in [
        ("--panoptic-dir", "images", "--panoptic-json"),
        ("--anomaly-values", "0,255", "--anomaly-dir"),
        ("--anomaly-score", "rba", "--anomaly-dir"),
    ] {
        let arguments = ["--predictions", "results.json", "--instances", "datumaro/instances_train.json", option, value];
        refuse(&mut evaluate(&arguments), 2, &[option, owner]);
    }
    let arguments = ["--model", "m.onnx", "--images", "images", "--class-maps", "images", "--predictions-json", "p.json"];
    refuse(&mut evaluate(&arguments), 2, &["--predictions-json", "--predictions,"]);
    let arguments = ["--yolo", yolo.to_str().unwrap(), "--predictions", found.to_str().unwrap()];
    refuse(evaluate(&arguments).args(["--split", "dev"]), 2, &["data.yaml", "no dev", "train, val, test", "--split"]);
    refuse(evaluate(&arguments).args(["--split", "train"]), 1, &["data.yaml", "../train/images", "does not exist"]);
    refuse(evaluate(&arguments).args(["--task", "panoptic"]), 2, &["--yolo", "--task instance"]);
}

/// A YOLO folder with a picture `a.png` whose text file holds `lines`.
fn yolo(scratch: &Scratch, name: &str, yaml: &str, lines: Option<&str>) -> PathBuf {
    let folder = scratch.path(name);
    std::fs::create_dir_all(folder.join("images")).unwrap();
    std::fs::create_dir_all(folder.join("labels")).unwrap();
    std::fs::copy(data("annotations/images/b.png"), folder.join("images/a.png")).unwrap();
    lines.iter().for_each(|lines| std::fs::write(folder.join("labels/a.txt"), lines).unwrap());
    std::fs::write(folder.join("data.yaml"), yaml).unwrap();
    folder.join("data.yaml")
}

#[test]
fn unusable_yolo_files_are_named() {
    let scratch = Scratch::new("annotations-yolo-bad");
    const YAML: &str = "path: .\nval: images\nnames:\n  0: cat\n  1: dog\n";
    let cases: [(&str, &str, Option<&str>, &[&str]); 10] = [
        ("boxes", YAML, Some("0 .5 .5 .2 .2\n1 .1 .1 .1 .1"), &["data.yaml", "all 2 objects", "boxes"]),
        ("none", YAML, None, &["data.yaml", "no picture of val has a text file", "labels/a.txt"]),
        ("empty", YAML, Some(" \n"), &["data.yaml", "no picture of val has an object"]),
        ("class", YAML, Some("2 0 0 1 0 1 1"), &["a.txt, line 1", "class 2", "2 names"]),
        ("pixels", YAML, Some("0 0 0 1 0 1 1\n0 0 0 32 0 32 24"), &["a.txt, line 2", "32"]),
        ("odd", YAML, Some("0 0 0 1 0 1 1 0"), &["a.txt, line 1", "7 numbers"]),
        ("pose", "val: images\nnames: [a]\nkpt_shape: [17, 3]\n", Some("0 0 0 1 0 1 1"), &["kpt_shape", "poses"]),
        ("count", "val: images\nnc: 3\nnames: [a]\n", Some("0 0 0 1 0 1 1"), &["nc is 3", "1 names"]),
        ("gap", "val: images\nnames: {0: a, 2: b}\n", Some("0 0 0 1 0 1 1"), &["data.yaml", "gaps"]),
        ("yaml", "val: [", Some("0 0 0 1 0 1 1"), &["data.yaml", "not YAML"]),
    ];
    for (name, yaml_text, lines, words) in cases {
        let yaml = yolo(&scratch, name, yaml_text, lines);
        refuse(&mut evaluate(&["--yolo", yaml.to_str().unwrap(), "--predictions", "datumaro/results.json"]), 1, words);
    }
}

const CITYSCAPES: [&str; 2] = ["--images", "cityscapes/leftImg8bit"];

/// cityscapesScripts calls the picture of `ulm/x_leftImg8bit.png` `x_gtFine_leftImg8bit.png`.
#[test]
fn cityscapes_own_files_are_read_by_their_names() {
    let panoptic = ["--panoptic-json", "cityscapes/cityscapes_panoptic_val.json", "--panoptic-dir", "cityscapes/cityscapes_panoptic_val"];
    let itself = ["--predictions", "cityscapes/cityscapes_panoptic_val", "--predictions-json", "cityscapes/cityscapes_panoptic_val.json"];
    let scratch = Scratch::new("annotations-cityscapes");
    // the report shows the pictures, so they are looked for
    let report = scratch.path("report");
    let output = succeed(evaluate(&[&panoptic[..], &itself, &CITYSCAPES].concat()).arg("--report").arg(&report));
    assert_eq!(scores(&output)["all"]["pq"], 1.0);
    assert!(report.join("index.html").is_file());
    // ids and train ids are the same classes, by Cityscapes' names
    let folder = scratch.path("fine");
    let of = |kind: &str| {
        let maps = folder.join(kind);
        std::fs::create_dir_all(maps.join("ulm")).unwrap();
        for number in 0..2 {
            let name = format!("ulm/ulm_{number:06}_000019_gtFine_{kind}.png");
            std::fs::copy(data("annotations/cityscapes/gtFine/val").join(&name), maps.join(&name)).unwrap();
        }
        let maps = maps.to_string_lossy().into_owned();
        scores(&succeed(&mut evaluate(&["--class-maps", &maps, "--predictions", &maps])))
    };
    let (ids, train_ids) = (of("labelIds"), of("labelTrainIds"));
    assert_eq!(ids, train_ids);
    assert_eq!((ids["per_class"]["road"]["iou"].as_f64(), ids["per_class"].as_object().unwrap().len()), (Some(1.0), 19), "{ids}");
    // both kinds in one folder: train ids; their picture folder below another
    let both = ["--class-maps", "cityscapes/gtFine", "--predictions", "cityscapes/gtFine"];
    assert_eq!(scores(&succeed(&mut evaluate(&both)))["per_class"]["road"]["iou"], 1.0);
}

/// The folder of maps with one of them changed, for pictures a and b.
fn maps(scratch: &Scratch, name: &str) -> PathBuf {
    let folder = scratch.path(name);
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["a.one two.png", "b.png"] {
        image::GrayImage::from_fn(48, 36, |x, y| image::Luma([u8::from(x > 20) + u8::from(y > 30)])).save(folder.join(file)).unwrap();
    }
    folder
}

#[test]
fn colours_need_a_list_of_them() {
    let scratch = Scratch::new("annotations-colours");
    let source = data("annotations/datumaro-masks");
    let folder = scratch.path("voc");
    std::fs::create_dir_all(folder.join("SegmentationClass")).unwrap();
    for file in ["a.one two.png", "b.png"] {
        std::fs::copy(source.join("SegmentationClass").join(file), folder.join("SegmentationClass").join(file)).unwrap();
    }
    let maps = folder.join("SegmentationClass").to_string_lossy().into_owned();
    let arguments = ["--class-maps", &maps, "--predictions", &maps];
    refuse(&mut evaluate(&arguments), 1, &["SegmentationClass/a.one two.png", "coloured", "labelmap.txt"]);
    // VOC's own colours are known by the names
    let found = scores(&succeed(evaluate(&arguments).args(["--class-names", "voc"])));
    assert_eq!((&found["per_class"]["aeroplane"]["iou"], &found["per_class"]["bicycle"]["iou"]), (&json!(1.0), &json!(1.0)), "{found}");
    std::fs::copy(source.join("labelmap.txt"), folder.join("labelmap.txt")).unwrap();
    let found = scores(&succeed(&mut evaluate(&arguments)));
    assert_eq!((&found["miou"], &found["per_class"]["dog"]["iou"]), (&json!(1.0), &json!(1.0)), "{found}");
    std::fs::write(folder.join("labelmap.txt"), "# label:color_rgb:parts:actions\ncat:1,2,3::\n").unwrap();
    refuse(&mut evaluate(&arguments), 1, &["a.one two.png", "labelmap.txt has no class"]);
    std::fs::write(folder.join("labelmap.txt"), "cat:red::\n").unwrap();
    refuse(&mut evaluate(&arguments), 1, &["labelmap.txt", "RED,GREEN,BLUE"]);
}

#[test]
fn class_maps_that_do_not_fit_are_named() {
    let scratch = Scratch::new("annotations-maps");
    let folder = maps(&scratch, "maps");
    let arguments = |maps: &Path, names: &str| {
        let maps = maps.to_string_lossy().into_owned();
        evaluate(&["--images", "images", "--class-maps", &maps, "--predictions", &maps, "--class-names", names])
    };
    refuse(&mut arguments(&folder, "left,right"), 1, &["a.one two.png", "the value 2", "2 classes"]);
    let output = succeed(&mut arguments(&folder, "left,right,corner"));
    assert_eq!(scores(&output)["miou"], 1.0);
    assert_eq!(scores(&output)["per_class"]["corner"]["iou"], 1.0);
    refuse(&mut arguments(&folder, "nowhere.txt"), 2, &["--class-names nowhere.txt"]);
    let nothing = |command: &mut Command| refuse(command.args(["--ignore-label", "0,1,2"]), 1, &["no pixel of the ground truth", "maps"]);
    nothing(&mut arguments(&folder, "a,b,c"));
    // a picture without a map is skipped by name, and all of them are too many
    std::fs::remove_file(folder.join("b.png")).unwrap();
    let output = succeed(&mut arguments(&folder, "a,b,c"));
    assert!(warnings(&output).contains("skipped: b.png") && scores(&output)["images"] == 1, "{}", warnings(&output));
    let renamed = scratch.path("renamed");
    std::fs::create_dir(&renamed).unwrap();
    std::fs::copy(folder.join("a.one two.png"), renamed.join("a.one two_seg.png")).unwrap();
    refuse(&mut arguments(&renamed, "a,b,c"), 1, &["a.one two.png", "--suffixes"]);
    let mut command = evaluate(&["--images", "images", "--class-names", "a,b,c", "--suffixes", ".png,_seg.png"]);
    let output = succeed(command.arg("--class-maps").arg(&renamed).arg("--predictions").arg(&folder));
    assert_eq!(scores(&output)["miou"], 1.0);
}

#[cfg(feature = "train")]
mod training {
    use super::*;

    /// A step of a small network.
    fn train(output: &Path, arguments: &[&str]) -> Command {
        let mut command = eomt_edge();
        command.arg("train").arg("-o").arg(output).current_dir(data("annotations")).args(arguments);
        let small = "--size 32 --patch 8 --width 24 --heads 2 --blocks 3 --query-blocks 2 --queries 9 --batch 2 --points 64 --steps 1";
        command.args(small.split(' '));
        command
    }

    fn labels(run: &Path) -> Vec<String> {
        let config = read(run.join("config.json"));
        let labels = config["id2label"].as_object().unwrap();
        (0..labels.len()).map(|label| labels[&label.to_string()].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_format_is_learned_from() {
        let scratch = Scratch::new("annotations-train");
        let panoptic = ["--panoptic-json", "datumaro-masks/panoptic_train.json", "--panoptic-dir", "datumaro-masks/panoptic_train"];
        let cityscapes =
            ["--panoptic-json", "cityscapes/cityscapes_panoptic_val.json", "--panoptic-dir", "cityscapes/cityscapes_panoptic_val"];
        let images = ["--images", "images"];
        let city = ["--images", "cityscapes/leftImg8bit"];
        let maps = ["--class-maps", "cityscapes/gtFine"];
        // arguments; the number of classes and the first; what a warning or the end says
        type Case<'a> = (&'a str, Vec<&'a str>, (usize, &'a str), &'a str);
        let cases: [Case; 8] = [
            ("datumaro", [&images[..], &["--instances", "datumaro/instances_train.json"]].concat(), (2, "cat"), ""),
            (
                "crowds",
                [&images[..], &["--instances", "datumaro-masks/instances_train.json", "--crowds", "objects"]].concat(),
                (2, "cat"),
                "",
            ),
            ("labelme", [&images[..], &["--instances", "labelme/dataset.json"]].concat(), (2, "cat"), ""),
            ("studio", [&images[..], &["--instances", "label-studio/result.json"]].concat(), (2, "cat"), ""),
            ("yolo", vec!["--yolo", "yolo/data.yaml", "--split", "val"], (2, "cat"), ""),
            ("panoptic", [&images[..], &panoptic].concat(), (2, "cat"), "isthing is 0 for every category"),
            ("cityscapes", [&city[..], &cityscapes].concat(), (19, "road"), "--stuff 'road,"),
            ("maps", [&city[..], &maps].concat(), (19, "road"), "--task semantic"),
        ];
        for (name, arguments, (count, first), told) in cases {
            let run = scratch.path(name);
            let output = succeed(&mut train(&run, &arguments));
            let labels = labels(&run);
            assert_eq!((labels.len(), labels[0].as_str()), (count, first), "{name}");
            let text = warnings(&output) + &String::from_utf8(output.stdout).unwrap();
            assert!(text.contains(told), "{name}: {text}");
        }
    }

    #[test]
    fn what_cannot_be_learned_from_is_said_before_the_first_step() {
        let scratch = Scratch::new("annotations-train-bad");
        let run = scratch.path("run");
        let instances = |truth: &str| train(&run, &["--images", "images", "--instances", truth]);
        let missing = changed(&scratch, "missing", "datumaro/instances_train.json", |document| {
            document["images"][1]["file_name"] = json!("sub/gone.png");
        });
        refuse(&mut instances(&missing), 1, &["missing.json", "1 of its 2 pictures", "images/sub/gone.png"]);
        // one that shows nothing would be skipped: it is missed all the same
        let bare = changed(&scratch, "bare", "datumaro/instances_train.json", |document| {
            let more = json!({"id": 77, "file_name": "bare.png", "width": 48, "height": 36});
            document["images"].as_array_mut().unwrap().push(more);
        });
        refuse(&mut instances(&bare), 1, &["bare.json", "1 of its 3 pictures", "images/bare.png"]);
        let other = changed(&scratch, "other", "datumaro/instances_train.json", |document| document["images"][1]["width"] = json!(50));
        refuse(&mut instances(&other), 1, &["other.json", "images/b.png has 48x36", "50x36"]);
        let same = changed(&scratch, "same", "datumaro/instances_train.json", |document| document["categories"][1]["name"] = json!("cat"));
        refuse(&mut instances(&same), 1, &["same name, cat"]);
        let crowds = ["--images", "images", "--instances", "datumaro-masks/instances_train.json"];
        refuse(&mut train(&run, &crowds), 1, &["all 5 objects are crowds", "--crowds objects"]);
        let broken = changed(&scratch, "broken", "datumaro/instances_train.json", |document| {
            document["annotations"][4]["segmentation"] = json!({ "size": [48, 36], "counts": [1728] });
        });
        refuse(&mut instances(&broken), 1, &["b.png", "36x48"]);
        let folder = maps(&scratch, "maps");
        let class_maps = ["--images", "images", "--class-maps", folder.to_str().unwrap()];
        refuse(&mut train(&run, &class_maps), 2, &["--class-names"]);
        refuse(train(&run, &class_maps).args(["--class-names", "a,b"]), 1, &["a.one two.png", "the value 2"]);
        refuse(&mut train(&run, &["--instances", "datumaro/instances_train.json"]), 2, &["--images"]);
        refuse(&mut train(&run, &["--images", "images"]), 2, &["--instances"]);
        assert!(!run.exists(), "nothing was to be left behind");
        // pictures without a mask are skipped by name
        let some = changed(&scratch, "some", "datumaro/instances_train.json", |document| {
            document["annotations"].as_array_mut().unwrap().retain(|object| object["image_id"] == 1);
        });
        let output = succeed(&mut instances(&some));
        assert!(warnings(&output).contains("1 pictures without a mask are skipped: b.png"), "{}", warnings(&output));
    }
}
