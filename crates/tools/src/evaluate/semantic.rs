//! Mean intersection over union of a dataset: one confusion matrix over all pixels of all images.
//!
//! ```text
//! IoU(class) = right pixels / (pixels of the class in the ground truth + in the prediction - right pixels)
//! mIoU       = mean over the classes that occur in ground truth or prediction
//! ```
//! Pixels without a class in the ground truth do not count; without one in the prediction, they are misses of their true class.

use hotcoco::metrics::semantic::PixelConfusion;

use super::scores::{Row, Scores};
use crate::datasets::labels::{Class, ClassMap, NO_CLASS};

/// The confusion matrix of one image or of many.
pub struct Confusion(PixelConfusion);

impl Confusion {
    pub fn new(classes: usize) -> Confusion {
        Confusion(PixelConfusion::with_unlabeled_pred(classes))
    }

    /// Adds maps of one size.
    pub fn add(&mut self, ground_truth: &ClassMap, prediction: &ClassMap) {
        let none = self.0.num_classes();
        let pairs: Vec<(u16, u16)> = ground_truth.classes.iter().copied().zip(prediction.classes.iter().copied()).collect();
        for run in pairs.chunk_by(|a, b| a == b) {
            let (gt, pred) = run[0];
            if gt != NO_CLASS {
                self.0.add_count(usize::from(gt), if pred == NO_CLASS { none } else { usize::from(pred) }, run.len() as u64);
            }
        }
    }

    pub fn sum(&mut self, other: &Confusion) {
        self.0.add(&other.0);
    }

    /// `None` when no pixel counts.
    pub fn miou(&self) -> Option<f64> {
        let scores = self.0.scores();
        scores.is_computed().then_some(scores.miou)
    }

    pub fn scores(&self, classes: &[Class], images: usize) -> Scores {
        let scores = self.0.scores();
        let value = |value: f64| (value >= 0.0).then_some(value);
        let class = |(class, scores): (&Class, &hotcoco::metrics::semantic::ClassScores)| Row {
            name: class.name.clone(),
            values: vec![value(scores.iou), value(scores.acc)],
        };
        Scores {
            task: "semantic",
            images,
            columns: vec!["miou", "fwiou", "mean_accuracy", "pixel_accuracy"],
            overall: vec![Row { name: String::new(), values: [scores.miou, scores.fwiou, scores.macc, scores.aacc].map(value).to_vec() }],
            class_columns: vec!["iou", "accuracy"],
            classes: classes.iter().zip(&scores.per_class).map(class).collect(),
        }
    }
}

/// Pixels of different classes. Those without a class in `ground_truth` count only with `none_counts`, for another prediction.
pub fn wrong(ground_truth: &ClassMap, prediction: &ClassMap, none_counts: bool) -> Vec<bool> {
    let differs = |(gt, pred): (&u16, &u16)| gt != pred && (none_counts || *gt != NO_CLASS);
    ground_truth.classes.iter().zip(&prediction.classes).map(differs).collect()
}
