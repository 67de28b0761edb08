//! Two models side by side.

use serde_json::{Value, json};

use super::run::{ImageResult, Outcome};
use super::scores::percent;

/// The images at which the two differ most, most first.
pub fn most_different(outcome: &Outcome, count: usize) -> Vec<(usize, &ImageResult)> {
    let mut images: Vec<(usize, &ImageResult)> = outcome.images.iter().enumerate().collect();
    images.sort_by(|(_, a), (_, b)| b.disagreement.unwrap_or(0.0).total_cmp(&a.disagreement.unwrap_or(0.0)));
    images.truncate(count);
    images
}

/// The table, then where they differ.
pub fn lines(outcome: &Outcome, count: usize) -> Vec<String> {
    let [a, b] = &outcome.scores[..] else { return Vec::new() };
    let mut lines = vec![format!("A: {}", outcome.names[0]), format!("B: {}", outcome.names[1])];
    lines.extend(a.side_by_side(b));
    lines.push(format!("{:<32} {:>9} {:>9} {:>14}", "most different images", "A", "B", "pixels differ"));
    for (_, image) in most_different(outcome, count) {
        let [a, b] = [image.scores[0], image.scores[1]].map(percent);
        lines.push(format!("{:<32} {a:>9} {b:>9} {:>14}", image.name, percent(image.disagreement)));
    }
    lines
}

/// `{"task", "images", "models", "a", "b", "difference", "most_different"}`.
pub fn json(outcome: &Outcome, count: usize) -> Value {
    let [a, b] = &outcome.scores[..] else { return Value::Null };
    let image = |(_, image): (usize, &ImageResult)| json!({ "image": image.name, "a": image.scores[0], "b": image.scores[1], "differing_pixels": image.disagreement });
    json!({
        "task": a.task, "images": a.images, "models": outcome.names, "a": a.json(), "b": b.json(), "difference": b.minus(a).json(),
        "most_different": most_different(outcome, count).into_iter().map(image).collect::<Vec<_>>(),
    })
}
