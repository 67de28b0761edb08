//! Messages read back, pixel by pixel.

use eomt_edge_client::layout::{SLOT_HAS_FRAME, SLOT_NO_SIGNAL};

use super::*;

fn args() -> TopicArgs {
    TopicArgs { frame_id: "camera".into(), confidence: true, camera: true, raw: true, calibration: None, jpeg_quality: 90 }
}

fn facts() -> RingFacts {
    RingFacts { labels: vec!["ball".into(), "box".into()], ..RingFacts::default() }
}

/// 4x2: segment 3 (box, tracked as 7) on the left, segment 9 (ball) in one corner.
fn frame() -> MaskFrame {
    let mut frame = MaskFrame { ids: vec![3, 3, 0, 9, 3, 3, 0, 0], frame_bytes: (0..24).collect(), ..MaskFrame::default() };
    (frame.info.width, frame.info.height, frame.info.flags) = (4, 2, SLOT_HAS_FRAME);
    (frame.info.frame_format, frame.info.frame_stride) = (u32::from_le_bytes(*b"RGB3"), 12);
    let row = |id, class, score, bbox, area, track_id| SegmentRow { id, class, score, bbox, area, track_id };
    frame.segments = vec![row(3, 1, 0.5, [0, 0, 2, 2], 4, 7), row(9, 0, 1.0, [3, 0, 1, 1], 1, 0)];
    frame
}

const STAMP_NS: u64 = 1_764_500_000_123_456_789;

fn made(frame: &MaskFrame, args: &TopicArgs) -> Vec<(Topic, Vec<u8>)> {
    Messages::new(args).unwrap().of_frame(frame, &facts(), STAMP_NS, |_| true).unwrap()
}

fn message<M: Message>(topic: Topic) -> M {
    let messages = made(&frame(), &args());
    let (_, bytes) = messages.iter().find(|(made, _)| *made == topic).unwrap();
    assert_eq!(topic.definition().name, M::NAME);
    M::from_cdr(bytes).unwrap()
}

fn png_values(topic: Topic, format: &str) -> Vec<u16> {
    let message: CompressedImage = message(topic);
    assert_eq!((message.header.stamp.ns(), message.header.frame_id.as_str(), message.format.as_str()), (STAMP_NS, "camera", format));
    let picture = image::load_from_memory_with_format(&message.data, image::ImageFormat::Png).unwrap();
    assert_eq!((picture.width(), picture.height()), (4, 2));
    match picture {
        image::DynamicImage::ImageLuma16(picture) => picture.into_raw(),
        image::DynamicImage::ImageLuma8(picture) => picture.into_raw().into_iter().map(u16::from).collect(),
        other => panic!("{:?}", other.color()),
    }
}

#[test]
fn ids_classes_and_scores_survive_png() {
    assert_eq!(png_values(Topic::Panoptic, "mono16; png compressed "), frame().ids);
    assert_eq!(png_values(Topic::Semantic, "mono16; png compressed "), [2, 2, 0, 1, 2, 2, 0, 0]);
    assert_eq!(png_values(Topic::Confidence, "mono8; png compressed "), [128, 128, 0, 255, 128, 128, 0, 0]);
}

#[test]
fn raw_pictures_are_rows_of_little_endian_values() {
    let ids: Image = message(Topic::PanopticRaw);
    assert_eq!((ids.encoding.as_str(), ids.width, ids.height, ids.step, ids.is_bigendian), ("mono16", 4, 2, 8, 0));
    assert_eq!(ids.data, [3, 0, 3, 0, 0, 0, 9, 0, 3, 0, 3, 0, 0, 0, 0, 0]);
    let camera: Image = message(Topic::CameraRaw);
    assert_eq!((camera.encoding.as_str(), camera.step, &camera.data), ("rgb8", 12, &frame().frame_bytes));
    let overlay: Image = message(Topic::OverlayRaw);
    // nothing is at (2, 1)
    assert_eq!(overlay.data[18..21], frame().frame_bytes[18..21]);
    assert_ne!(overlay.data[..3], frame().frame_bytes[..3]);
}

#[test]
fn detections_have_boxes_scores_and_tracks() {
    let message: Detection2DArray = message(Topic::Detections);
    let told: Vec<_> = message
        .detections
        .iter()
        .map(|one| {
            let (result, centre) = (&one.results[0].hypothesis, &one.bbox.center.position);
            (result.class_id.as_str(), result.score, centre.x, centre.y, one.bbox.size_x, one.bbox.size_y, one.id.as_str())
        })
        .collect();
    assert_eq!(told, [("box", 0.5, 1.0, 1.0, 2.0, 2.0, "7"), ("ball", 1.0, 3.5, 0.5, 1.0, 1.0, "")]);
    assert!(message.detections.iter().all(|one| one.header == message.header));
}

#[test]
fn labels_name_the_values_of_the_class_picture() {
    let info = LabelInfo::from_cdr(&Messages::new(&args()).unwrap().label_info(&facts(), STAMP_NS)).unwrap();
    let classes: Vec<_> = info.class_map.iter().map(|class| (class.class_id, class.class_name.as_str())).collect();
    assert_eq!(classes, [(0, "nothing"), (1, "ball"), (2, "box")]);
}

#[test]
fn only_what_was_asked_for_and_is_wanted_is_made() {
    let plain = TopicArgs { confidence: false, camera: false, raw: false, ..args() };
    let topics = |args: &TopicArgs| made(&frame(), args).into_iter().map(|(topic, _)| topic).collect::<Vec<_>>();
    assert_eq!(topics(&plain), [Topic::Panoptic, Topic::Semantic, Topic::Detections, Topic::Overlay]);
    let some = Messages::new(&args()).unwrap().of_frame(&frame(), &facts(), 0, |topic| topic == Topic::Semantic).unwrap();
    assert_eq!(some.len(), 1);
    assert_eq!(topics(&args()).len(), Topic::ALL.len() - 3);
}

#[test]
fn camera_frames_of_other_formats() {
    let made_of = |code: &[u8; 4], stride: u32, bytes: Vec<u8>| {
        let mut frame = MaskFrame { frame_bytes: bytes, ..frame() };
        (frame.info.frame_format, frame.info.frame_stride) = (u32::from_le_bytes(*code), stride);
        let messages = made(&frame, &args());
        let of = |topic: Topic| messages.iter().find(|(made, _)| *made == topic).map(|(_, bytes)| bytes.clone());
        (of(Topic::Camera), of(Topic::CameraRaw))
    };
    // as the camera compressed it
    let (jpeg, raw) = made_of(b"MJPG", 0, vec![0xff, 0xd8, 0xff, 0xd9]);
    assert_eq!(CompressedImage::from_cdr(&jpeg.unwrap()).unwrap().data, [0xff, 0xd8, 0xff, 0xd9]);
    assert_eq!(raw, None);
    let (jpeg, raw) = made_of(b"YUYV", 8, vec![1; 16]);
    assert_eq!(jpeg, None);
    let raw = Image::from_cdr(&raw.unwrap()).unwrap();
    assert_eq!((raw.encoding.as_str(), raw.step, raw.data.len()), ("yuv422_yuy2", 8, 16));
    let silent = MaskFrame { info: eomt_edge_client::layout::SlotInfo { flags: SLOT_NO_SIGNAL, ..frame().info }, ..frame() };
    assert!(!made(&silent, &args()).iter().any(|(topic, _)| *topic == Topic::Camera));
}

#[test]
fn a_calibration_of_another_size_is_not_sent() {
    let calibrated = |width: u32| {
        let mut messages = Messages::new(&TopicArgs { calibration: None, ..args() }).unwrap();
        messages.args.calibration = Some("x.yaml".into());
        messages.calibration = Some(CameraInfo { width, height: 2, ..CameraInfo::default() });
        let made = messages.of_frame(&frame(), &facts(), STAMP_NS, |topic| topic == Topic::CameraInfo).unwrap();
        made.first().map(|(_, bytes)| CameraInfo::from_cdr(bytes).unwrap())
    };
    assert_eq!(calibrated(4).map(|info| (info.width, info.header.stamp.ns())), Some((4, STAMP_NS)));
    assert_eq!(calibrated(8), None);
}
