//! sensor_msgs: pictures and what is known about a camera.

use super::std_msgs::Header;
use crate::message::message;

message! {
    /// A picture as it is in memory.
    Image = "sensor_msgs/msg/Image" {
        /// When and where.
        header: Header,
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
        /// `rgb8`, `mono16` ...
        encoding: String,
        /// Whether values of more than one byte are big-endian.
        is_bigendian: u8,
        /// Bytes of a row.
        step: u32,
        /// `step * height` bytes.
        data: Vec<u8>,
    }

    /// A picture as a file.
    CompressedImage = "sensor_msgs/msg/CompressedImage" {
        /// When and where.
        header: Header,
        /// `jpeg`, `png`, or with what image_transport adds: `mono16; png compressed `.
        format: String,
        /// The file's bytes.
        data: Vec<u8>,
    }

    /// A part of a camera's pixels; all zero means all of them.
    RegionOfInterest = "sensor_msgs/msg/RegionOfInterest" {
        /// Pixels.
        x_offset: u32,
        /// Pixels.
        y_offset: u32,
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
        /// Whether the picture has been rectified.
        do_rectify: bool,
    }

    /// A camera's calibration.
    CameraInfo = "sensor_msgs/msg/CameraInfo" {
        /// When and where.
        header: Header,
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
        /// `plumb_bob`, `rational_polynomial`, `equidistant`.
        distortion_model: String,
        /// The model's parameters.
        d: Vec<f64>,
        /// Row-major 3x3: focal lengths and principal point.
        k: [f64; 9],
        /// Row-major 3x3: rectification.
        r: [f64; 9],
        /// Row-major 3x4: projection after rectification.
        p: [f64; 12],
        /// Camera pixels that make one column; 0 is 1.
        binning_x: u32,
        /// Camera pixels that make one row; 0 is 1.
        binning_y: u32,
        /// Which part of the camera's pixels.
        roi: RegionOfInterest,
    }
}
