//! vision_msgs (4.x, from Humble on): labels and detections.

use super::geometry_msgs::PoseWithCovariance;
use super::std_msgs::Header;
use crate::message::message;

message! {
    /// A class's number and name.
    VisionClass = "vision_msgs/msg/VisionClass" {
        /// As in pictures of classes.
        class_id: u16,
        /// Its name.
        class_name: String,
    }

    /// What the numbers in a picture of classes mean.
    LabelInfo = "vision_msgs/msg/LabelInfo" {
        /// When and where.
        header: Header,
        /// All classes.
        class_map: Vec<VisionClass>,
        /// The least score of a segment.
        threshold: f32,
    }

    /// A point in a picture, pixels.
    Point2D = "vision_msgs/msg/Point2D" {
        /// Pixels from the left edge.
        x: f64,
        /// Pixels from the upper edge.
        y: f64,
    }

    /// A point and a direction in a picture.
    Pose2D = "vision_msgs/msg/Pose2D" {
        /// Where.
        position: Point2D,
        /// Radians.
        theta: f64,
    }

    /// A box in a picture.
    BoundingBox2D = "vision_msgs/msg/BoundingBox2D" {
        /// Its middle.
        center: Pose2D,
        /// Pixels.
        size_x: f64,
        /// Pixels.
        size_y: f64,
    }

    /// A class and how sure it is.
    ObjectHypothesis = "vision_msgs/msg/ObjectHypothesis" {
        /// Name or number of the class.
        class_id: String,
        /// 0 to 1.
        score: f64,
    }

    /// The same with a place in the world.
    ObjectHypothesisWithPose = "vision_msgs/msg/ObjectHypothesisWithPose" {
        /// The class.
        hypothesis: ObjectHypothesis,
        /// Where; all zero when unknown.
        pose: PoseWithCovariance,
    }

    /// One object in a picture.
    Detection2D = "vision_msgs/msg/Detection2D" {
        /// When and where.
        header: Header,
        /// What it may be.
        results: Vec<ObjectHypothesisWithPose>,
        /// Where in the picture.
        bbox: BoundingBox2D,
        /// Who: equal from picture to picture.
        id: String,
    }

    /// The objects of a picture.
    Detection2DArray = "vision_msgs/msg/Detection2DArray" {
        /// When and where.
        header: Header,
        /// One for each.
        detections: Vec<Detection2D>,
    }
}
