//! The messages of a recording: those of the ROS topics, and Foxglove's annotations.
//!
//! Invariants: a topic has the name that `eomt-edge-bridge ros2` gives it. Refuses: to record a picture twice, raw and compressed.

use std::collections::HashMap;

use eomt_edge_client::MaskFrame;
use eomt_edge_ros::messages::foxglove_msgs::ImageAnnotations;
use eomt_edge_ros::{Definition, Message, definition};

use crate::clock::{monotonic_ns, realtime_ns};
use crate::masks::{Masks, RingFacts};
use crate::topics::{self, CalibrationError, Health, Topic, TopicArgs};

use super::annotations::annotations;
use super::book::{Sample, Schema};
use super::error::RecordError;
use super::times::Times;
use super::{Camera, RecordArgs};

/// As the node of `eomt-edge-bridge ros2` is called.
const NODE: &str = "eomt_edge";

/// Makes messages, with buffers and definitions that are kept.
pub struct Messages {
    topics: topics::Messages,
    health: Health,
    camera: Camera,
    overlay: bool,
    channels: HashMap<Topic, Channel>,
    annotations: Channel,
    complained: bool,
}

/// What all messages of a topic have in common.
struct Channel {
    topic: String,
    schema: Schema,
    is_latched: bool,
}

impl Channel {
    fn new(name: &str, of: &'static Definition, is_latched: bool) -> Channel {
        let topic = if name.starts_with('/') { name.to_owned() } else { format!("/{NODE}/{name}") };
        Channel { topic, schema: Schema { name: of.name, definition: definition(of) }, is_latched }
    }

    fn sample<'a>(&'a self, times: Times, sequence: u64, cdr: &'a [u8]) -> Sample<'a> {
        let Channel { topic, schema, is_latched } = self;
        // counts anew after 4 thousand million frames
        let sequence = sequence as u32;
        Sample { topic, schema, is_latched: *is_latched, stamp_ns: times.stamp_ns, published_ns: times.published_ns, sequence, cdr }
    }
}

impl Messages {
    /// Reads the calibration, if there is one.
    ///
    /// # Errors
    /// [`CalibrationError`].
    pub fn new(args: &RecordArgs) -> Result<Messages, CalibrationError> {
        let topics = topics::Messages::new(&TopicArgs {
            frame_id: args.frame_id.clone(),
            confidence: args.confidence,
            camera: args.camera != Camera::None,
            raw: args.camera == Camera::Raw,
            calibration: args.calibration.clone(),
            jpeg_quality: args.jpeg_quality,
        })?;
        let channel = |topic: Topic| (topic, Channel::new(topic.name(), topic.definition(), topic.is_latched()));
        Ok(Messages {
            topics,
            health: Health::new(NODE, &args.ring.socket),
            camera: args.camera,
            overlay: args.overlay,
            channels: Topic::ALL.into_iter().map(channel).collect(),
            annotations: Channel::new("annotations", ImageAnnotations::DEFINITION, false),
            complained: false,
        })
    }

    /// What a frame's numbers mean, before the first of them.
    ///
    /// # Errors
    /// `note`'s.
    pub fn classes(
        &self,
        facts: &RingFacts,
        times: Times,
        note: impl FnOnce(&Sample) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        let cdr = self.topics.label_info(facts, times.stamp_ns);
        note(&self.channels[&Topic::LabelInfo].sample(times, 0, &cdr))
    }

    /// How the daemon is doing.
    ///
    /// # Errors
    /// `note`'s.
    pub fn health(&mut self, masks: &Masks, note: impl FnOnce(&Sample) -> Result<(), RecordError>) -> Result<(), RecordError> {
        let now_ns = realtime_ns();
        let cdr = self.health.report(masks, monotonic_ns(), now_ns);
        note(&self.channels[&Topic::Diagnostics].sample(Times { stamp_ns: now_ns, published_ns: now_ns }, 0, &cdr))
    }

    /// A frame came, with a picture or without.
    pub fn see(&mut self, frame: &MaskFrame) {
        self.health.frame(frame, monotonic_ns());
    }

    /// Shows all messages of a frame to `take`, as one batch.
    ///
    /// # Errors
    /// `take`'s. A picture that cannot be compressed is told once, and left out with the whole frame.
    pub fn frame(
        &mut self,
        frame: &MaskFrame,
        facts: &RingFacts,
        times: Times,
        take: impl FnOnce(Vec<Sample>) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        let Messages { camera, overlay, .. } = *self;
        let wanted = |topic: Topic| match topic {
            Topic::Camera => camera == Camera::Jpeg,
            Topic::CameraRaw => camera == Camera::Raw,
            Topic::Overlay => overlay,
            topic => !topic.is_raw(),
        };
        let made = match self.topics.of_frame(frame, facts, times.stamp_ns, wanted) {
            Ok(made) => made,
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    log::warn!("frames are left out: {error}");
                }
                return Ok(());
            }
        };
        let drawn = annotations(frame, facts, times.stamp_ns).to_cdr();
        let sequence = frame.sequence();
        let mut samples: Vec<Sample> = made.iter().map(|(topic, cdr)| self.channels[topic].sample(times, sequence, cdr)).collect();
        samples.push(self.annotations.sample(times, sequence, &drawn));
        take(samples)
    }
}
