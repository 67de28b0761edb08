//! `--report` of anomaly scores: the images whose anomalous pixels are ranked worst (one scorer), or most differently (two).

use std::path::Path;

use anyhow::Result;
use eomt_edge_host::files;

use super::super::scores::{Row, percent};
use super::super::{pictures, report};
use super::{Outcome, Run, columns};
use crate::progress;

/// Writes the pictures, then `index.html`.
pub fn write(directory: &Path, run: &mut Run, outcome: &Outcome) -> Result<()> {
    let mut body = format!("<h1>Evaluation: anomaly scores, {} images</h1>\n", outcome.images.len());
    let row = |(name, measure): (&String, &_)| Row { name: name.clone(), values: columns(measure).to_vec() };
    let rows: Vec<Row> = run.names.iter().zip(&outcome.overall).map(row).collect();
    body.push_str(&report::table(&["AP", "FPR@95"], &rows, &[]));
    body.push_str(if rows.len() == 1 { "<h2>Worst images</h2>\n" } else { "<h2>Most different images</h2>\n" });
    let shown = shown(outcome, run.options.shown);
    let bar = progress::bar(shown.len() as u64, "drawing");
    for (place, index) in shown.into_iter().enumerate() {
        body.push_str(&show(directory, run, outcome, index, place)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    files::write(&directory.join("index.html"), report::document(&run.names, &body).as_bytes())
}

/// Indices of the images with the lowest AP, or with the largest difference of two. Images without anomalous pixels have none.
pub(super) fn shown(outcome: &Outcome, count: usize) -> Vec<usize> {
    let order = |measures: &Vec<super::Measure>| match measures[..] {
        [one] => Some(one?.0),
        [a, b, ..] => Some(-(a?.0 - b?.0).abs()),
        [] => None,
    };
    let mut ordered: Vec<(usize, f64)> =
        outcome.images.iter().enumerate().filter_map(|(index, measures)| Some((index, order(measures)?))).collect();
    ordered.sort_by(|a, b| a.1.total_cmp(&b.1));
    ordered.into_iter().take(count).map(|(index, _)| index).collect()
}

/// Draws one image and describes it in HTML.
fn show(directory: &Path, run: &mut Run, outcome: &Outcome, index: usize, place: usize) -> Result<String> {
    let mask = run.mask(index)?;
    let frame = run.frame(index, &mask)?;
    let anomalous: Vec<bool> = mask.values.iter().map(|value| *value == run.options.anomaly_values[1]).collect();
    let mut panels = vec![
        ("picture".to_owned(), frame.data.clone()),
        ("anomalous by the ground truth".to_owned(), pictures::differences(&frame, &anomalous)),
    ];
    let names: &[&str] = if run.scorers.len() == 1 { &["score"] } else { &["score of A", "score of B"] };
    let maps = run.scores(index, &mask)?;
    for ((scores, name), measure) in maps.iter().zip(names).zip(&outcome.images[index]) {
        let [ap, fpr] = columns(measure).map(percent);
        let (low, high) = scores.iter().fold((f32::MAX, f32::MIN), |(low, high), score| (low.min(*score), high.max(*score)));
        let caption = format!("{name}, black {low:.3} to white {high:.3}; AP {ap}, FPR@95 {fpr}");
        panels.push((caption, pictures::heat(scores, low, high)));
    }
    let figures = report::gallery(directory, place, (frame.width, frame.height), panels)?;
    Ok(format!("<h3>{}</h3>\n{figures}", report::escape(&run.dataset.image(index).name)))
}
