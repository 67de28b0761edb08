//! Class names that a checkpoint does not carry: those of known datasets, and placeholders.

pub(super) use eomt_edge_core::model::datasets::Dataset;

/// `LABEL_0`, `LABEL_1`, …: what transformers writes for classes without names.
pub(super) fn unnamed(classes: usize) -> Vec<String> {
    (0..classes).map(|class| format!("LABEL_{class}")).collect()
}

/// Whether these are only numbers: `LABEL_n` (transformers) or `class_n` (LibreYOLO, attr-eomt).
pub(super) fn are_unnamed(labels: &[String]) -> bool {
    let is_number = |class: usize, label: &String| {
        ["LABEL_", "class_"].iter().any(|prefix| label.strip_prefix(prefix).is_some_and(|number| number == class.to_string()))
    };
    labels.iter().enumerate().all(|(class, label)| is_number(class, label))
}
