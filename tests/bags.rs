//! Bags through the program: played by the daemon, and in the place of pictures. Reading them is tested in `crates/ros` and `crates/host`.

mod common;

use std::path::PathBuf;
use std::process::Stdio;

use common::daemon::{connect, next, run, start};
use common::{Scratch, data, eomt_edge, fail, shipped_model, succeed};

const STAMPS: [u64; 4] = [1_700_000_000_000_000_001, 1_700_000_000_100_000_001, 1_700_000_000_200_000_001, 1_700_000_000_300_000_001];

/// What `segment` makes of a bag, in the folder `results`; the pictures alone in `pictures`.
fn segmented(scratch: &Scratch, bag: &str) {
    let mut segment = eomt_edge();
    segment.args(["segment", "--model"]).arg(shipped_model()).arg(data(bag)).arg("-o").arg(scratch.path("results"));
    succeed(&mut segment);
    std::fs::create_dir(scratch.path("pictures")).unwrap();
    for stamp in STAMPS {
        let name = format!("{stamp}.png");
        std::fs::copy(scratch.path("results").join(&name), scratch.path("pictures").join(&name)).unwrap();
    }
}

#[test]
fn a_played_bag_gives_what_segment_gives_and_keeps_its_stamps() {
    let scratch = Scratch::new("bag-played");
    segmented(&scratch, "bags/two-cameras.mcap:/camera/image_raw");
    let mut names: Vec<String> =
        std::fs::read_dir(scratch.path("results")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected: Vec<String> =
        STAMPS.iter().flat_map(|stamp| ["json", "overlay.png", "panoptic.png", "png"].map(|end| format!("{stamp}.{end}"))).collect();
    assert_eq!(names, expected);
    let socket = scratch.path("masks.sock");
    // slow enough that a reader comes in time
    let _daemon = start(&socket, &format!("bag:{}@0.2", data("bags/two-cameras.mcap:/camera/image_raw").display()), &[]);
    let frame = next(&mut connect(&socket));
    let stamp = STAMPS[frame.info.frame_sequence as usize - 1];
    assert_eq!(frame.stamp_ns(), Some(stamp));
    let panoptic = image::open(scratch.path(&format!("results/{stamp}.panoptic.png"))).unwrap().into_rgb8();
    let expected: Vec<u16> = panoptic.pixels().map(|p| u16::from(p[0]) + 256 * u16::from(p[1])).collect();
    assert!(frame.ids == expected, "the id map of picture {} differs", frame.info.frame_sequence);
}

#[test]
fn every_picture_is_played_and_the_end_is_what_the_user_says() {
    let scratch = Scratch::new("bag-ends");
    let source = format!("bag:{}@0", data("bags/split").display());
    let daemon = |settings: &[&str]| {
        let output = run(&scratch.path("masks.sock"), &source, settings).stderr(Stdio::piped()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, log) = daemon(&["source.end=stop"]);
    assert!(code == Some(0) && log.contains("4 frames in"), "{log}");
    let (code, log) = daemon(&[]);
    assert!(code == Some(1) && log.contains("the bag ended after 4 pictures; if it is meant to, set source.end=stop"), "{log}");
}

#[test]
fn evaluate_takes_a_bag_for_a_folder_of_its_pictures() {
    let scratch = Scratch::new("bag-evaluate");
    segmented(&scratch, "bags/plain.db3");
    let maps = scratch.path("maps");
    std::fs::create_dir(&maps).unwrap();
    for stamp in STAMPS {
        let map = image::GrayImage::from_fn(16, 12, |x, _| image::Luma([u8::from(x > 7)]));
        map.save(maps.join(format!("{stamp}.png"))).unwrap();
    }
    let scores = |images: PathBuf| {
        let mut evaluate = eomt_edge();
        evaluate.args(["evaluate", "--json", "--model"]).arg(shipped_model()).arg("--class-maps").arg(&maps).arg("--images").arg(images);
        succeed(&mut evaluate).stdout
    };
    let of_bag = scores(data("bags/plain.db3"));
    assert!(!of_bag.is_empty());
    assert_eq!(of_bag, scores(scratch.path("pictures")));
}

#[test]
fn calibration_takes_a_bag_for_a_folder_of_its_pictures() {
    let scratch = Scratch::new("bag-calibrate");
    segmented(&scratch, "bags/directory");
    let convert = |images: PathBuf| {
        let output = scratch.path("model.onnx");
        let mut convert = eomt_edge();
        convert
            .arg("convert")
            .arg(data("reference/dinov2"))
            .arg("-o")
            .arg(&output)
            .args(["--precision", "int8", "--calibrate"])
            .arg(images);
        succeed(&mut convert);
        std::fs::read(output).unwrap()
    };
    assert!(convert(data("bags/directory")) == convert(scratch.path("pictures")), "two models");
    let mut refused = eomt_edge();
    refused.arg("convert").arg(data("reference/dinov2")).arg("-o").arg(scratch.path("none.onnx"));
    let message = fail(refused.args(["--precision", "int8", "--calibrate"]).arg(data("bags/two-cameras.mcap")), 2);
    assert!(message.contains("two-cameras.mcap") && message.contains("/left/image_raw"), "{message}");
}
