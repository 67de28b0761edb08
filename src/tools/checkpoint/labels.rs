//! Class names that a checkpoint does not carry: those of known datasets, and those of nobody.

pub(super) use crate::model::datasets::Dataset;

/// `LABEL_0`, `LABEL_1`, …: what transformers writes when nobody named the classes.
pub(super) fn unnamed(classes: usize) -> Vec<String> {
    (0..classes).map(|class| format!("LABEL_{class}")).collect()
}

pub(super) fn are_unnamed(labels: &[String]) -> bool {
    labels.iter().enumerate().all(|(class, label)| label.strip_prefix("LABEL_").is_some_and(|number| number == class.to_string()))
}
