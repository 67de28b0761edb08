//! `--report`: an HTML page without scripts or outside links, and pictures beside it.
//!
//! It shows the scores, every class, and the images with the worst score (one model) or the largest difference (two).

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use eomt_edge_host::files;

use super::run::{ImageResult, Outcome, Run, wrong};
use super::scores::{Row, Scores, percent};
use super::{compare, pictures};
use crate::progress;

const STYLE: &str = "body{font:15px system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:right}\
td:first-child,th:first-child{text-align:left}.images{display:flex;flex-wrap:wrap;gap:.5em}figure{margin:0}\
figure img{width:18em;image-rendering:pixelated}figcaption{font-size:.85em;color:#555}";

/// Writes the pictures, then `index.html`.
pub fn write(directory: &Path, run: &mut Run, outcome: &Outcome) -> Result<()> {
    let shown: Vec<usize> = match &outcome.scores[..] {
        [_] => worst(outcome, run.options.shown),
        _ => compare::most_different(outcome, run.options.shown).into_iter().map(|(index, _)| index).collect(),
    };
    let mut gallery = String::new();
    let bar = progress::bar(shown.len() as u64, "drawing");
    for (place, index) in shown.into_iter().enumerate() {
        gallery.push_str(&show(directory, run, outcome, index, place)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    files::write(&directory.join("index.html"), page(outcome, &gallery).as_bytes())
}

/// Indices of the images with the lowest scores, lowest first.
fn worst(outcome: &Outcome, count: usize) -> Vec<usize> {
    let mut scored: Vec<(usize, f64)> =
        outcome.images.iter().enumerate().filter_map(|(index, image)| Some((index, image.scores[0]?))).collect();
    scored.sort_by(|a, b| a.1.total_cmp(&b.1));
    scored.into_iter().take(count).map(|(index, _)| index).collect()
}

/// Draws one image and says what it shows.
fn show(directory: &Path, run: &mut Run, outcome: &Outcome, index: usize, place: usize) -> Result<String> {
    let ground_truth = run.ground_truth(index)?;
    let frame = run.frame(index, &ground_truth)?;
    let predictions = run.predictions(index, &ground_truth, Some(&frame))?;
    let names: Vec<String> = run.dataset.classes().iter().map(|class| class.name.clone()).collect();
    let mut panels = vec![("picture", frame.data.clone()), ("ground truth", pictures::overlay(&frame, &ground_truth, &names))];
    match &predictions[..] {
        [a, b] => {
            panels.push(("A", pictures::overlay(&frame, a, &names)));
            panels.push(("B", pictures::overlay(&frame, b, &names)));
            panels.push(("where A and B differ", pictures::differences(&frame, &wrong(a, b, true))));
        }
        all => {
            for prediction in all {
                panels.push(("prediction", pictures::overlay(&frame, prediction, &names)));
                panels.push(("where it is wrong", pictures::differences(&frame, &wrong(&ground_truth, prediction, false))));
            }
        }
    }
    let panels = panels.into_iter().map(|(what, rgb)| (what.to_owned(), rgb)).collect();
    let image = &outcome.images[index];
    let figures = gallery(directory, place, (frame.width, frame.height), panels)?;
    Ok(format!("<h3>{}</h3>\n<p>{}</p>\n{figures}", escape(&image.name), caption(image)))
}

/// Writes an image's pictures (what each shows, its RGB pixels) and returns the HTML that shows them.
pub fn gallery(directory: &Path, place: usize, (width, height): (u32, u32), panels: Vec<(String, Vec<u8>)>) -> Result<String> {
    let mut html = String::from("<div class=\"images\">\n");
    for (number, (what, rgb)) in panels.into_iter().enumerate() {
        let file = format!("{place:03}-{number}.png");
        files::write(&directory.join(&file), &files::png_rgb(&rgb, width, height)?)?;
        let _ = writeln!(html, "<figure><img src=\"{file}\" alt=\"{what}\"><figcaption>{what}</figcaption></figure>"); // to a String
    }
    html.push_str("</div>\n");
    Ok(html)
}

fn caption(image: &ImageResult) -> String {
    match (&image.scores[..], image.disagreement) {
        ([a, b], Some(share)) => format!("A {}, B {}; {} % of the pixels differ", percent(*a), percent(*b), percent(Some(share))),
        (scores, _) => format!("score {}", percent(scores.first().copied().flatten())),
    }
}

fn page(outcome: &Outcome, gallery: &str) -> String {
    let scores = &outcome.scores;
    let mut body = format!("<h1>Evaluation: {}, {} images</h1>\n", scores[0].task, scores[0].images);
    match &scores[..] {
        [one] => {
            let _ = writeln!(body, "<p>{}</p>", escape(&outcome.names[0]));
            body.push_str(&table(&one.columns, &one.overall, &[]));
            body.push_str(&table(&one.class_columns, &one.classes, &[]));
            body.push_str("<h2>Worst images</h2>\n");
        }
        [a, b, ..] => {
            let _ = writeln!(body, "<p>A: {}<br>B: {}</p>", escape(&outcome.names[0]), escape(&outcome.names[1]));
            let change = b.minus(a);
            let sides = |rows: fn(&Scores) -> &Vec<Row>| [rows(b).clone(), rows(&change).clone()];
            body.push_str(&table(&a.columns, &a.overall, &sides(|scores| &scores.overall)));
            body.push_str(&table(&a.class_columns, &a.classes, &sides(|scores| &scores.classes)));
            body.push_str("<h2>Most different images</h2>\n");
        }
        [] => {}
    }
    body.push_str(gallery);
    document(&outcome.names, &body)
}

/// A whole page about `names`.
pub fn document(names: &[String], body: &str) -> String {
    let title = escape(&names.join(", "));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body>\n{body}<p>All scores in percent.</p>\n</body>\n</html>\n"
    )
}

/// Rows of scores; `others` are B's rows and B minus A.
pub fn table(columns: &[&str], rows: &[Row], others: &[Vec<Row>]) -> String {
    let suffixes = if others.is_empty() { vec![""] } else { vec![" A", " B", " B - A"] };
    let mut html = String::from("<table>\n<tr><th></th>");
    for column in columns {
        suffixes.iter().for_each(|suffix| html.push_str(&format!("<th>{column}{suffix}</th>")));
    }
    html.push_str("</tr>\n");
    for (place, row) in rows.iter().enumerate() {
        let _ = write!(html, "<tr><td>{}</td>", escape(&row.name));
        for at in 0..row.values.len() {
            let sides = std::iter::once(row.values[at]).chain(others.iter().map(|rows| rows[place].values[at]));
            sides.for_each(|value| html.push_str(&format!("<td>{}</td>", percent(value))));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
    html
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
