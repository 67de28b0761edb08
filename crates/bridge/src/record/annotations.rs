//! Boxes, names and scores as Foxglove draws them over the camera's picture.
//!
//! Invariants: a box encloses all pixels of its segment, edges included; a class has the overlay's colour.

use eomt_edge_client::MaskFrame;
use eomt_edge_client::layout::SegmentRow;
use eomt_edge_overlay::class_colour;
use eomt_edge_ros::messages::builtin_interfaces::Time;
use eomt_edge_ros::messages::foxglove_msgs::{Color, ImageAnnotations, KeyValuePair, LINE_LOOP, Point2, PointsAnnotation, TextAnnotation};

use crate::masks::RingFacts;

/// Of boxes, pixels.
const THICKNESS: f64 = 2.0;
/// Of names, pixels of the picture.
const FONT_SIZE: f64 = 12.0;

/// The annotations of one frame; without segments they are empty, which takes the last ones off the screen.
pub fn annotations(frame: &MaskFrame, facts: &RingFacts, stamp_ns: u64) -> ImageAnnotations {
    let timestamp = Time::from_ns(stamp_ns);
    ImageAnnotations {
        timestamp: timestamp.clone(),
        circles: Vec::new(),
        points: frame.segments.iter().map(|row| outline(row, &timestamp)).collect(),
        texts: frame.segments.iter().map(|row| text(row, facts, &timestamp)).collect(),
        metadata: Vec::new(),
    }
}

fn corner(x: u32, y: u32) -> Point2 {
    Point2 { x: f64::from(x), y: f64::from(y) }
}

fn outline(row: &SegmentRow, timestamp: &Time) -> PointsAnnotation {
    let [x, y, width, height] = row.bbox;
    let (right, bottom) = (x.saturating_add(width), y.saturating_add(height));
    PointsAnnotation {
        timestamp: timestamp.clone(),
        r#type: LINE_LOOP,
        points: vec![corner(x, y), corner(right, y), corner(right, bottom), corner(x, bottom)],
        outline_color: colour(row.class, 1.0),
        outline_colors: Vec::new(),
        fill_color: Color::default(),
        thickness: THICKNESS,
        metadata: vec![fact("id", row.id), fact("class", row.class), fact("track", row.track_id), fact("area", row.area)],
    }
}

fn text(row: &SegmentRow, facts: &RingFacts, timestamp: &Time) -> TextAnnotation {
    let name = facts.label(row.class);
    TextAnnotation {
        timestamp: timestamp.clone(),
        // below the upper edge, where it is on the picture
        position: Point2 { x: f64::from(row.bbox[0]), y: f64::from(row.bbox[1]) + FONT_SIZE },
        text: if row.score.is_nan() { name } else { format!("{name} {:.2}", row.score) },
        font_size: FONT_SIZE,
        text_color: Color { r: 1.0, g: 1.0, b: 1.0, a: 1.0 },
        background_color: colour(row.class, 0.6),
        metadata: Vec::new(),
    }
}

fn fact(key: &str, value: impl ToString) -> KeyValuePair {
    KeyValuePair { key: key.to_owned(), value: value.to_string() }
}

fn colour(class: u16, a: f64) -> Color {
    let [r, g, b] = class_colour(class).map(|part| f64::from(part) / 255.0);
    Color { r, g, b, a }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_goes_around_its_segment() {
        let row = SegmentRow { id: 3, class: 1, score: 0.876, bbox: [10, 20, 30, 40], area: 900, track_id: 7 };
        let frame = MaskFrame { segments: vec![row], ..MaskFrame::default() };
        let facts = RingFacts { labels: vec!["floor".into(), "ball".into()], ..RingFacts::default() };
        let found = annotations(&frame, &facts, 1_500_000_000);
        assert_eq!((found.timestamp.sec, found.timestamp.nanosec), (1, 500_000_000));
        let corners: Vec<_> = found.points[0].points.iter().map(|point| (point.x, point.y)).collect();
        assert_eq!(corners, [(10.0, 20.0), (40.0, 20.0), (40.0, 60.0), (10.0, 60.0)]);
        assert_eq!(found.texts[0].text, "ball 0.88");
        assert_eq!(found.points[0].metadata[2], KeyValuePair { key: "track".into(), value: "7".into() });
        assert!(annotations(&MaskFrame::default(), &facts, 0).points.is_empty());
    }
}
