//! geometry_msgs: what detections carry; ours are all zero, as masks have no depth.

use crate::message::message;

message! {
    /// A place, metres.
    Point = "geometry_msgs/msg/Point" {
        /// Metres.
        x: f64,
        /// Metres.
        y: f64,
        /// Metres.
        z: f64,
    }

    /// A rotation. Its default is all zero, which is none; [`Quaternion::IDENTITY`] is.
    Quaternion = "geometry_msgs/msg/Quaternion" {
        /// Vector part.
        x: f64,
        /// Vector part.
        y: f64,
        /// Vector part.
        z: f64,
        /// Scalar part.
        w: f64,
    }

    /// A place and a rotation.
    Pose = "geometry_msgs/msg/Pose" {
        /// Where.
        position: Point,
        /// How turned.
        orientation: Quaternion,
    }

    /// A pose and how sure it is.
    PoseWithCovariance = "geometry_msgs/msg/PoseWithCovariance" {
        /// The pose.
        pose: Pose,
        /// 6x6: x, y, z, and rotations about them.
        covariance: Covariance,
    }
}

impl Quaternion {
    /// No rotation.
    pub const IDENTITY: Quaternion = Quaternion { x: 0.0, y: 0.0, z: 0.0, w: 1.0 };
}

/// Row-major 6x6. (Arrays of 36 have no `Default` of their own.)
#[derive(Debug, Clone, PartialEq)]
pub struct Covariance(pub [f64; 36]);

impl Default for Covariance {
    fn default() -> Covariance {
        Covariance([0.0; 36])
    }
}

impl crate::Field for Covariance {
    const KIND: crate::Kind = <[f64; 36] as crate::Field>::KIND;

    fn write(&self, writer: &mut crate::cdr::Writer) {
        self.0.write(writer);
    }

    fn read(reader: &mut crate::cdr::Reader) -> Result<Covariance, crate::cdr::CdrError> {
        <[f64; 36]>::read(reader).map(Covariance)
    }
}
