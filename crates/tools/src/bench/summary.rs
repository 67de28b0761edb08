//! Times to three numbers.

use serde_json::{Value, json};

/// Minimum, median and 95th percentile in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    pub min: f64,
    pub median: f64,
    pub p95: f64,
}

impl Summary {
    /// Of at least one time in milliseconds.
    pub fn of(mut times: Vec<f64>) -> Summary {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        Summary { min: at(0.0), median: at(0.5), p95: at(0.95) }
    }

    pub fn json(&self) -> Value {
        json!({ "min_ms": round(self.min, 3), "median_ms": round(self.median, 3), "p95_ms": round(self.p95, 3) })
    }
}

/// To `digits` after the point: what is beyond them was not measured.
pub(super) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10.0_f64.powi(digits);
    (value * scale).round() / scale
}
