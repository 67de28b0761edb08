//! foxglove_msgs: what Foxglove draws over a picture. As of August 2026: a time stamp of the whole, and metadata in each part.

use super::builtin_interfaces::Time;
use crate::message::message;

message! {
    /// A fact.
    KeyValuePair = "foxglove_msgs/msg/KeyValuePair" {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    }

    /// A point in a picture, pixels from the upper left corner of the upper left pixel.
    Point2 = "foxglove_msgs/msg/Point2" {
        /// Pixels.
        x: f64,
        /// Pixels.
        y: f64,
    }

    /// A colour, each part 0 to 1.
    Color = "foxglove_msgs/msg/Color" {
        /// Red.
        r: f64,
        /// Green.
        g: f64,
        /// Blue.
        b: f64,
        /// Opacity.
        a: f64,
    }

    /// A circle.
    CircleAnnotation = "foxglove_msgs/msg/CircleAnnotation" {
        /// When.
        timestamp: Time,
        /// Its middle.
        position: Point2,
        /// Pixels.
        diameter: f64,
        /// Of the line, pixels.
        thickness: f64,
        /// Inside.
        fill_color: Color,
        /// The line.
        outline_color: Color,
        /// Facts.
        metadata: Vec<KeyValuePair>,
    }

    /// Points, or lines between them.
    PointsAnnotation = "foxglove_msgs/msg/PointsAnnotation" {
        /// When.
        timestamp: Time,
        /// [`LINE_LOOP`] ...
        r#type: u8,
        /// Corners.
        points: Vec<Point2>,
        /// The line.
        outline_color: Color,
        /// Of each point or line; empty = all alike.
        outline_colors: Vec<Color>,
        /// Inside.
        fill_color: Color,
        /// Of the line, pixels.
        thickness: f64,
        /// Facts.
        metadata: Vec<KeyValuePair>,
    }

    /// A text.
    TextAnnotation = "foxglove_msgs/msg/TextAnnotation" {
        /// When.
        timestamp: Time,
        /// Its lower left corner.
        position: Point2,
        /// What it says.
        text: String,
        /// Pixels.
        font_size: f64,
        /// Of the letters.
        text_color: Color,
        /// Behind them.
        background_color: Color,
        /// Facts.
        metadata: Vec<KeyValuePair>,
    }

    /// All that is drawn over a picture.
    ImageAnnotations = "foxglove_msgs/msg/ImageAnnotations" {
        /// Of the picture.
        timestamp: Time,
        /// Circles.
        circles: Vec<CircleAnnotation>,
        /// Points and lines.
        points: Vec<PointsAnnotation>,
        /// Texts.
        texts: Vec<TextAnnotation>,
        /// Facts.
        metadata: Vec<KeyValuePair>,
    }
}

/// [`PointsAnnotation::type`]: each point is joined to the next, the last to the first.
pub const LINE_LOOP: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Message, definition};

    #[test]
    fn a_field_may_have_a_keyword_s_name() {
        let text = definition(ImageAnnotations::DEFINITION);
        assert!(text.contains("\nuint8 type\n"), "{text}");
        let shape = PointsAnnotation { r#type: LINE_LOOP, points: vec![Point2 { x: 1.5, y: 2.0 }], ..PointsAnnotation::default() };
        let all = ImageAnnotations { points: vec![shape], ..ImageAnnotations::default() };
        assert_eq!(ImageAnnotations::from_cdr(&all.to_cdr()).unwrap(), all);
    }
}
