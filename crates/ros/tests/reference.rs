//! Our bytes and hashes against those of ROS 2 Kilted (and of rosbags for vision_msgs): `scripts/ros-reference.py` made `tests/data`.

use std::fmt::Debug;

use eomt_edge_ros::messages::builtin_interfaces::Time;
use eomt_edge_ros::messages::diagnostic_msgs::{self, DiagnosticArray, DiagnosticStatus, KeyValue};
use eomt_edge_ros::messages::geometry_msgs::{Covariance, Pose, PoseWithCovariance, Quaternion};
use eomt_edge_ros::messages::rmw_dds_common::{Gid, NodeEntitiesInfo, ParticipantEntitiesInfo, humble};
use eomt_edge_ros::messages::sensor_msgs::{CameraInfo, CompressedImage, Image, RegionOfInterest};
use eomt_edge_ros::messages::std_msgs::Header;
use eomt_edge_ros::messages::vision_msgs::{
    BoundingBox2D, Detection2D, Detection2DArray, LabelInfo, ObjectHypothesis, ObjectHypothesisWithPose, Point2D, Pose2D, VisionClass,
};
use eomt_edge_ros::{Base, Definition, Message, dds_name, definition, type_hash};

fn header(frame_id: &str) -> Header {
    Header { stamp: Time { sec: 1_764_500_000, nanosec: 123_456_789 }, frame_id: frame_id.into() }
}

/// Written like the reference, read back equal, and every shorter version refused without a panic.
fn compare<M: Message + Debug + PartialEq>(message: M) {
    let name = M::NAME.rsplit('/').next().unwrap();
    let path = format!("{}/tests/data/{name}.cdr", env!("CARGO_MANIFEST_DIR"));
    let reference = std::fs::read(path).unwrap();
    assert_eq!(message.to_cdr(), reference, "{name}");
    assert_eq!(M::from_cdr(&reference).as_ref(), Ok(&message), "{name}");
    for end in 0..reference.len() {
        if let Ok(shorter) = M::from_cdr(&reference[..end]) {
            panic!("{name} of {end} bytes: {shorter:?}");
        }
    }
    // every byte as every other one: an error, or a message that is written and read as the same again
    for (at, value) in (0..reference.len()).flat_map(|at| (0..=255).map(move |value| (at, value))) {
        let mut changed = reference.clone();
        changed[at] = value;
        if let Ok(message) = M::from_cdr(&changed) {
            assert_eq!(M::from_cdr(&message.to_cdr()).map(|again| again.to_cdr()), Ok(message.to_cdr()), "{name} with {value} at {at}");
        }
    }
}

#[test]
fn pictures() {
    let data = (0..12).collect();
    compare(Image { header: header("camera"), height: 2, width: 3, encoding: "mono16".into(), is_bigendian: 0, step: 6, data });
    compare(CompressedImage { header: header("a"), format: "mono16; png compressed ".into(), data: (0..7).collect() });
    compare(CameraInfo {
        header: header("optical"),
        height: 480,
        width: 640,
        distortion_model: "plumb_bob".into(),
        d: vec![0.1, -0.2, 0.0, 0.0, 0.5],
        k: std::array::from_fn(|i| i as f64),
        r: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p: std::array::from_fn(|i| i as f64 / 4.0),
        binning_x: 1,
        binning_y: 2,
        roi: RegionOfInterest { x_offset: 1, y_offset: 2, height: 3, width: 4, do_rectify: true },
    });
}

#[test]
fn diagnostics() {
    let pair = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
    let status = DiagnosticStatus {
        level: diagnostic_msgs::WARN,
        name: "eomt_edge: masks".into(),
        message: "no signal".into(),
        hardware_id: "1234".into(),
        values: vec![pair("frames", "7"), pair("", "ü")],
    };
    compare(DiagnosticArray { header: header(""), status: vec![status, DiagnosticStatus::default()] });
}

fn entities() -> ParticipantEntitiesInfo {
    let gid = |start: u8| Gid { data: std::array::from_fn(|i| start + i as u8) };
    let node = NodeEntitiesInfo {
        node_namespace: "/robot".into(),
        node_name: "eomt_edge".into(),
        reader_gid_seq: vec![],
        writer_gid_seq: vec![gid(16), gid(32)],
    };
    ParticipantEntitiesInfo { gid: gid(0), node_entities_info_seq: vec![node] }
}

#[test]
fn nodes() {
    compare(entities());
}

#[test]
fn ids_of_humble_have_eight_more_bytes() {
    let (kilted, humble) = (entities().to_cdr(), humble::ParticipantEntitiesInfo::from(&entities()).to_cdr());
    // three ids
    assert_eq!(humble.len(), kilted.len() + 3 * 8);
    assert_eq!(humble[4..20], kilted[4..20]);
    assert_eq!(humble[20..28], [0; 8]);
    assert_eq!(humble[28..], [&kilted[20..kilted.len() - 16], &[0; 8], &kilted[kilted.len() - 16..], &[0; 8]].concat());
}

#[test]
fn labels_and_detections() {
    let class = |class_id: u16, name: &str| VisionClass { class_id, class_name: name.into() };
    let class_map = vec![class(0, "nothing"), class(1, "é"), class(65535, "")];
    compare(LabelInfo { header: header("camera"), class_map, threshold: 0.25 });
    let pose = Pose { orientation: Quaternion::IDENTITY, ..Pose::default() };
    let result = ObjectHypothesisWithPose {
        hypothesis: ObjectHypothesis { class_id: "person".into(), score: 0.75 },
        pose: PoseWithCovariance { pose, covariance: Covariance(std::array::from_fn(|i| i as f64)) },
    };
    let center = Pose2D { position: Point2D { x: 10.5, y: 20.25 }, theta: 0.5 };
    let bbox = BoundingBox2D { center, size_x: 21.0, size_y: 40.5 };
    let first = Detection2D { header: header("camera"), results: vec![result], bbox: bbox.clone(), id: "17".into() };
    let second = Detection2D { header: header(""), results: vec![], bbox, id: String::new() };
    compare(Detection2DArray { header: header("camera"), detections: vec![first, second] });
}

const TYPES: [&Definition; 10] = [
    Image::DEFINITION,
    CompressedImage::DEFINITION,
    CameraInfo::DEFINITION,
    DiagnosticArray::DEFINITION,
    ParticipantEntitiesInfo::DEFINITION,
    LabelInfo::DEFINITION,
    Detection2DArray::DEFINITION,
    Header::DEFINITION,
    Time::DEFINITION,
    PoseWithCovariance::DEFINITION,
];

#[test]
fn hashes_are_those_of_the_distributions() {
    fn check(definition: &'static Definition, reference: &str) {
        let line = format!("{} {}", definition.name, type_hash(definition));
        assert!(reference.lines().any(|known| known == line), "{line}");
        for field in definition.fields {
            if let Base::Nested(nested) = field.kind.base {
                check(nested, reference);
            }
        }
    }
    let reference = include_str!("data/hashes.txt");
    TYPES.iter().for_each(|definition| check(definition, reference));
    // computed by others, from the sources of vision_msgs 4.1.1
    assert_eq!(type_hash(Detection2DArray::DEFINITION), "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968");
}

#[test]
fn names_and_texts() {
    assert_eq!(dds_name(Image::DEFINITION), "sensor_msgs::msg::dds_::Image_");
    let text = definition(LabelInfo::DEFINITION);
    let bar = "=".repeat(80);
    assert_eq!(
        text,
        format!(
            "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n\
             {bar}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n\
             {bar}\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n\
             {bar}\nMSG: vision_msgs/VisionClass\nuint16 class_id\nstring class_name\n"
        )
    );
    assert!(definition(ParticipantEntitiesInfo::DEFINITION).contains("string<=256 node_name\n"));
    assert!(definition(DiagnosticArray::DEFINITION).contains("byte level\n"));
    assert!(definition(PoseWithCovariance::DEFINITION).contains("float64[36] covariance\n"));
}

/// A picture of another byte order, as a big-endian publisher sends it.
#[test]
fn big_endian_is_read() {
    let big = [
        &[0, 0, 0, 0][..],
        &7_i32.to_be_bytes(),
        &9_u32.to_be_bytes(),
        &2_u32.to_be_bytes(),
        b"f\0\0\0",
        &5_u32.to_be_bytes(),
        b"jpeg\0\0\0\0",
        &2_u32.to_be_bytes(),
        &[0xff, 0xd8],
    ];
    let expected = CompressedImage {
        header: Header { stamp: Time { sec: 7, nanosec: 9 }, frame_id: "f".into() },
        format: "jpeg".into(),
        data: vec![0xff, 0xd8],
    };
    assert_eq!(CompressedImage::from_cdr(&big.concat()), Ok(expected));
}
