//! Masks as ROS messages: which topics there are, and what a frame says on each. DDS, Zenoh and recordings send the same bytes.
//!
//! Invariants: ids and classes travel without loss (16-bit PNG, or raw), never as JPEG; a message is made only when it is wanted; all messages
//! of a frame have one stamp. Refuses: to send anything itself.

mod calibration;
mod health;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use eomt_edge_client::layout::SegmentRow;
use eomt_edge_client::{FrameFormat, MaskFrame};
use eomt_edge_overlay::Style;
use eomt_edge_ros::messages::builtin_interfaces::Time;
use eomt_edge_ros::messages::diagnostic_msgs::DiagnosticArray;
use eomt_edge_ros::messages::geometry_msgs::{Pose, PoseWithCovariance, Quaternion};
use eomt_edge_ros::messages::sensor_msgs::{CameraInfo, CompressedImage, Image};
use eomt_edge_ros::messages::std_msgs::Header;
use eomt_edge_ros::messages::vision_msgs::{
    BoundingBox2D, Detection2D, Detection2DArray, LabelInfo, ObjectHypothesis, ObjectHypothesisWithPose, Point2D, Pose2D, VisionClass,
};
use eomt_edge_ros::{Definition, Message};

use crate::masks::RingFacts;
use crate::picture::{PictureError, Pictures, confidence, jpeg, png8};

pub use calibration::CalibrationError;
pub use health::Health;

/// The opacity of colours over the camera frame.
const OPACITY: f32 = 0.5;

/// What can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Ids of segments, 16-bit PNG.
    Panoptic,
    /// The same, raw.
    PanopticRaw,
    /// Classes plus one, 16-bit PNG.
    Semantic,
    /// The same, raw.
    SemanticRaw,
    /// What the numbers of [`Topic::Semantic`] mean.
    LabelInfo,
    /// Boxes, classes, scores, tracks.
    Detections,
    /// Colours over the camera frame, JPEG.
    Overlay,
    /// The same, raw.
    OverlayRaw,
    /// Each pixel's score, 0 to 255, 8-bit PNG.
    Confidence,
    /// The camera frame, JPEG.
    Camera,
    /// The same, raw.
    CameraRaw,
    /// The camera's calibration.
    CameraInfo,
    /// How the daemon is doing.
    Diagnostics,
}

impl Topic {
    /// All of them.
    pub const ALL: [Topic; 13] = [
        Topic::Panoptic,
        Topic::PanopticRaw,
        Topic::Semantic,
        Topic::SemanticRaw,
        Topic::LabelInfo,
        Topic::Detections,
        Topic::Overlay,
        Topic::OverlayRaw,
        Topic::Confidence,
        Topic::Camera,
        Topic::CameraRaw,
        Topic::CameraInfo,
        Topic::Diagnostics,
    ];

    /// Its name below the node's own; from the root when it begins with `/`.
    pub fn name(self) -> &'static str {
        match self {
            Topic::Panoptic => "panoptic/compressed",
            Topic::PanopticRaw => "panoptic",
            Topic::Semantic => "semantic/compressed",
            Topic::SemanticRaw => "semantic",
            Topic::LabelInfo => "label_info",
            Topic::Detections => "detections",
            Topic::Overlay => "overlay/compressed",
            Topic::OverlayRaw => "overlay",
            Topic::Confidence => "confidence/compressed",
            Topic::Camera => "image/compressed",
            Topic::CameraRaw => "image",
            Topic::CameraInfo => "camera_info",
            Topic::Diagnostics => "/diagnostics",
        }
    }

    /// Its messages' type.
    pub fn definition(self) -> &'static Definition {
        match self {
            Topic::PanopticRaw | Topic::SemanticRaw | Topic::OverlayRaw | Topic::CameraRaw => Image::DEFINITION,
            Topic::Panoptic | Topic::Semantic | Topic::Overlay | Topic::Confidence | Topic::Camera => CompressedImage::DEFINITION,
            Topic::LabelInfo => LabelInfo::DEFINITION,
            Topic::Detections => Detection2DArray::DEFINITION,
            Topic::CameraInfo => CameraInfo::DEFINITION,
            Topic::Diagnostics => DiagnosticArray::DEFINITION,
        }
    }

    /// Sent once, and kept for whoever comes later (transient local).
    pub fn is_latched(self) -> bool {
        self == Topic::LabelInfo
    }

    /// Dear enough that it is made only while somebody listens.
    pub fn is_on_demand(self) -> bool {
        matches!(self, Topic::Overlay | Topic::Camera) || self.is_raw()
    }

    /// A picture as it is in memory: larger than what default socket buffers take.
    pub fn is_raw(self) -> bool {
        matches!(self, Topic::PanopticRaw | Topic::SemanticRaw | Topic::OverlayRaw | Topic::CameraRaw)
    }
}

/// What subcommands that send these messages take.
#[derive(Debug, Clone, Args)]
pub struct TopicArgs {
    /// `frame_id` of all messages: the camera's optical frame
    #[arg(long, value_name = "NAME", default_value = "camera_optical_frame")]
    pub frame_id: String,
    /// Each pixel's score as a picture, too
    #[arg(long)]
    pub confidence: bool,
    /// The camera frame, too; the daemon needs `ring.include_frame = true`
    #[arg(long)]
    pub camera: bool,
    /// Pictures without compression, too
    #[arg(long)]
    pub raw: bool,
    /// The camera's calibration, as ROS writes it (YAML): sent as camera_info
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Of the overlay and the camera frame
    #[arg(long, value_name = "1-100", default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub jpeg_quality: u8,
}

impl TopicArgs {
    /// The topics that were asked for.
    pub fn topics(&self) -> Vec<Topic> {
        let chosen = |topic: &Topic| match topic {
            Topic::Confidence => self.confidence,
            Topic::Camera => self.camera,
            Topic::CameraInfo => self.calibration.is_some(),
            Topic::CameraRaw => self.raw && self.camera,
            topic => self.raw || !topic.is_raw(),
        };
        Topic::ALL.into_iter().filter(chosen).collect()
    }
}

/// Makes messages, with buffers that stay.
#[derive(Debug)]
pub struct Messages {
    args: TopicArgs,
    calibration: Option<CameraInfo>,
    pictures: Pictures,
    /// Told once.
    complaints: BTreeSet<String>,
}

impl Messages {
    /// Reads the calibration, if there is one.
    ///
    /// # Errors
    /// [`CalibrationError`].
    pub fn new(args: &TopicArgs) -> Result<Messages, CalibrationError> {
        let calibration = args.calibration.as_deref().map(calibration::read).transpose()?;
        Ok(Messages { args: args.clone(), calibration, pictures: Pictures::default(), complaints: BTreeSet::new() })
    }

    /// Of those topics that every frame has ([`Topic::LabelInfo`] and [`Topic::Diagnostics`] have their own calls), the `wanted` ones, each as a
    /// message in CDR. `stamp_ns`: nanoseconds since 1970.
    ///
    /// # Errors
    /// [`PictureError`].
    pub fn of_frame(
        &mut self,
        frame: &MaskFrame,
        facts: &RingFacts,
        stamp_ns: u64,
        mut wanted: impl FnMut(Topic) -> bool,
    ) -> Result<Vec<(Topic, Vec<u8>)>, PictureError> {
        let header = self.header(stamp_ns);
        let mut messages = Vec::new();
        for topic in self.args.topics() {
            if matches!(topic, Topic::LabelInfo | Topic::Diagnostics) || !wanted(topic) {
                continue;
            }
            if let Some(message) = self.message(topic, frame, facts, &header)? {
                messages.push((topic, message));
            }
        }
        Ok(messages)
    }

    /// What the numbers of [`Topic::Semantic`] mean: 0 is nothing, `n` the ring's class `n - 1`.
    pub fn label_info(&self, facts: &RingFacts, stamp_ns: u64) -> Vec<u8> {
        let class = |(class_name, class_id): (&str, u16)| VisionClass { class_id, class_name: class_name.into() };
        let names = std::iter::once("nothing").chain(facts.labels.iter().map(String::as_str));
        LabelInfo { header: self.header(stamp_ns), class_map: names.zip(0..).map(class).collect(), threshold: 0.0 }.to_cdr()
    }

    fn header(&self, stamp_ns: u64) -> Header {
        Header { stamp: Time::from_ns(stamp_ns), frame_id: self.args.frame_id.clone() }
    }

    fn message(&mut self, topic: Topic, frame: &MaskFrame, facts: &RingFacts, header: &Header) -> Result<Option<Vec<u8>>, PictureError> {
        let (width, height) = (frame.width(), frame.height());
        let file = |format: &str, data| Some(CompressedImage { header: header.clone(), format: format.into(), data }.to_cdr());
        // the encoding comes first: older versions of image_transport take plain `png` for 8 bits
        Ok(match topic {
            Topic::Panoptic => file("mono16; png compressed ", self.pictures.png16(&frame.ids, width, height)?),
            Topic::Semantic => file("mono16; png compressed ", self.pictures.png_of_classes(frame)?),
            Topic::Confidence => file("mono8; png compressed ", png8(&confidence(frame), width, height)?),
            Topic::Overlay => {
                let rgb = self.pictures.overlay(frame, &facts.labels, STYLE);
                file("rgb8; jpeg compressed bgr8", jpeg(rgb, width, height, self.args.jpeg_quality)?)
            }
            Topic::PanopticRaw => Some(mono16(header, &frame.ids, width, height)),
            Topic::SemanticRaw => Some(mono16(header, self.pictures.classes(frame), width, height)),
            Topic::OverlayRaw => {
                let rgb = self.pictures.overlay(frame, &facts.labels, STYLE).to_vec();
                Some(image(header, "rgb8", 3 * width, height, width, rgb))
            }
            Topic::Camera => self.camera(frame)?.and_then(|data| file("rgb8; jpeg compressed bgr8", data)),
            Topic::CameraRaw => self.camera_raw(frame, header),
            Topic::CameraInfo => self.camera_info(frame, header),
            Topic::Detections => Some(detections(frame, facts, header).to_cdr()),
            Topic::LabelInfo | Topic::Diagnostics => None,
        })
    }

    /// The camera frame as JPEG: compressed here, or as the camera did it.
    fn camera(&mut self, frame: &MaskFrame) -> Result<Option<Vec<u8>>, PictureError> {
        let Some(camera) = self.camera_frame(frame) else { return Ok(None) };
        match camera.format {
            FrameFormat::Rgb24 => jpeg(camera.bytes, frame.width(), frame.height(), self.args.jpeg_quality).map(Some),
            FrameFormat::Mjpeg => Ok(Some(camera.bytes.to_vec())),
            format => Ok(self.complain(format!(
                "the daemon's camera frames are {format:?}, which is not sent as JPEG: set ring.frame_format = \"rgb\" there, or read --raw"
            ))),
        }
    }

    fn camera_raw(&mut self, frame: &MaskFrame, header: &Header) -> Option<Vec<u8>> {
        let camera = self.camera_frame(frame)?;
        let Some(encoding) = encoding(camera.format) else {
            let format = camera.format;
            return self.complain(format!(
                "the daemon's camera frames are {format:?}, which ROS has no name for: set ring.frame_format = \"rgb\" there"
            ));
        };
        Some(image(header, encoding, camera.stride, frame.height(), frame.width(), camera.bytes.to_vec()))
    }

    fn camera_frame<'a>(&mut self, frame: &'a MaskFrame) -> Option<eomt_edge_client::CameraFrame<'a>> {
        let camera = frame.frame();
        if camera.is_none() && !frame.no_signal() {
            self.complain::<()>("the ring carries no camera frames: set ring.include_frame = true in the daemon's configuration".into());
        }
        camera
    }

    /// The calibration, if it is one of pictures of this size: scaled it would be a guess about how the camera scales.
    fn camera_info(&mut self, frame: &MaskFrame, header: &Header) -> Option<Vec<u8>> {
        let info = self.calibration.as_ref()?;
        if (info.width, info.height) != (frame.width(), frame.height()) {
            return self.complain(format!(
                "the calibration is of {}x{} pixels, the frames have {}x{}: no camera_info is sent; calibrate at that size",
                info.width,
                info.height,
                frame.width(),
                frame.height()
            ));
        }
        Some(CameraInfo { header: header.clone(), ..info.clone() }.to_cdr())
    }

    fn complain<T>(&mut self, sentence: String) -> Option<T> {
        if self.complaints.insert(sentence.clone()) {
            log::warn!("{sentence}");
        }
        None
    }
}

const STYLE: Style = Style { opacity: OPACITY, font: None };

fn mono16(header: &Header, values: &[u16], width: u32, height: u32) -> Vec<u8> {
    image(header, "mono16", 2 * width, height, width, eomt_edge_client::ids_as_bytes(values).to_vec())
}

fn image(header: &Header, encoding: &str, step: u32, height: u32, width: u32, data: Vec<u8>) -> Vec<u8> {
    Image { header: header.clone(), height, width, encoding: encoding.into(), is_bigendian: 0, step, data }.to_cdr()
}

/// How ROS calls a format (sensor_msgs/image_encodings.hpp).
fn encoding(format: FrameFormat) -> Option<&'static str> {
    Some(match format {
        FrameFormat::Rgb24 => "rgb8",
        FrameFormat::Bgr24 => "bgr8",
        FrameFormat::Grey => "mono8",
        FrameFormat::Grey16 => "mono16",
        FrameFormat::Yuyv => "yuv422_yuy2",
        FrameFormat::Uyvy => "yuv422",
        FrameFormat::Nv21 => "nv21",
        FrameFormat::Nv24 => "nv24",
        _ => return None,
    })
}

fn detections(frame: &MaskFrame, facts: &RingFacts, header: &Header) -> Detection2DArray {
    let detections = frame.segments.iter().map(|segment| detection(segment, facts, header)).collect();
    Detection2DArray { header: header.clone(), detections }
}

fn detection(segment: &SegmentRow, facts: &RingFacts, header: &Header) -> Detection2D {
    let [left, top, width, height] = segment.bbox.map(f64::from);
    let hypothesis = ObjectHypothesis { class_id: facts.label(segment.class), score: f64::from(segment.score) };
    // masks have no depth
    let pose = Pose { orientation: Quaternion::IDENTITY, ..Pose::default() };
    let position = Point2D { x: left + width / 2.0, y: top + height / 2.0 };
    Detection2D {
        header: header.clone(),
        results: vec![ObjectHypothesisWithPose { hypothesis, pose: PoseWithCovariance { pose, ..Default::default() } }],
        bbox: BoundingBox2D { center: Pose2D { position, theta: 0.0 }, size_x: width, size_y: height },
        id: if segment.track_id == 0 { String::new() } else { segment.track_id.to_string() },
    }
}

#[cfg(test)]
mod tests;
