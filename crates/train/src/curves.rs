//! The curves of a run: `curves.csv` with one row per step, and `curves.svg`, its plot.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_host::{bounds, files};

use super::loss::Terms;

const HEADER: &str = "step,loss,cross_entropy,mask,dice,gradient_norm,learning_rate,masked";

/// One step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    /// From 0.
    pub step: u64,
    /// The weighted sum over all predictions that training minimizes.
    pub loss: f64,
    /// Unweighted terms of the last prediction, the one that inference uses.
    pub last: Terms,
    /// Before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the heads.
    pub rate: f64,
    /// Mean probability of masked attention over the query blocks.
    pub masked: f64,
}

/// The rows so far, in memory until [`Curves::save`] writes them.
pub(super) struct Curves {
    directory: PathBuf,
    rows: Vec<Row>,
}

impl Curves {
    /// The curves of a run after `steps` steps. Drops later rows, whose steps a crash undid.
    pub(super) fn open(directory: &Path, steps: u64) -> Result<Curves> {
        let path = directory.join("curves.csv");
        let mut curves = Curves { directory: directory.to_owned(), rows: vec![] };
        if steps == 0 {
            return Ok(curves);
        }
        let bytes = files::read(&path, &bounds::ANNOTATIONS)?;
        let text = String::from_utf8(bytes).with_context(|| format!("{}: is not text", path.display()))?;
        for line in text.lines().skip(1).take(steps as usize) {
            curves.rows.push(parse(line).with_context(|| format!("{}: '{line}' is not a row of curves", path.display()))?);
        }
        if curves.rows.len() as u64 != steps {
            bail!("{}: holds {} steps, and the state of the run {steps}", path.display(), curves.rows.len());
        }
        Ok(curves)
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Means over the last `count` steps.
    pub(super) fn recent(&self, count: usize) -> (f64, Terms) {
        let rows = &self.rows[self.rows.len().saturating_sub(count)..];
        let n = rows.len().max(1) as f64;
        let mean = |f: fn(&Row) -> f64| rows.iter().map(f).sum::<f64>() / n;
        let terms = Terms { cross_entropy: mean(|r| r.last.cross_entropy), mask: mean(|r| r.last.mask), dice: mean(|r| r.last.dice) };
        (mean(|r| r.loss), terms)
    }

    pub(super) fn save(&self) -> Result<()> {
        let mut text = format!("{HEADER}\n");
        for row in &self.rows {
            let Terms { cross_entropy, mask, dice } = row.last;
            let values = [row.loss, cross_entropy, mask, dice, row.gradient_norm, row.rate, row.masked];
            let values: Vec<String> = values.iter().map(f64::to_string).collect();
            writeln!(text, "{},{}", row.step, values.join(","))?;
        }
        files::write(&self.directory.join("curves.csv"), text.as_bytes())?;
        files::write(&self.directory.join("curves.svg"), plot(&self.rows).as_bytes())
    }
}

fn parse(line: &str) -> Option<Row> {
    let mut fields = line.split(',');
    let step = fields.next()?.parse().ok()?;
    let values: Vec<f64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let [loss, cross_entropy, mask, dice, gradient_norm, rate, masked] = values[..] else { return None };
    Some(Row { step, loss, last: Terms { cross_entropy, mask, dice }, gradient_norm, rate, masked })
}

const WIDTH: f64 = 860.0;
const PANEL: f64 = 190.0;
/// Points of a line; each is the mean over a stretch of steps.
const POINTS: usize = 200;

/// Name, colour and value of a line.
type Line = (&'static str, &'static str, fn(&Row) -> f64);

/// Three panels below one another: the terms of the last prediction, the whole loss, and the schedules.
fn plot(rows: &[Row]) -> String {
    let panels: [(&str, &[Line]); 3] = [
        (
            "last prediction",
            &[
                ("cross-entropy", "#1f77b4", |r| r.last.cross_entropy),
                ("mask", "#d62728", |r| r.last.mask),
                ("dice", "#2ca02c", |r| r.last.dice),
            ],
        ),
        ("loss of all predictions", &[("loss", "#333333", |r| r.loss)]),
        ("masked attention (probability)", &[("masked", "#9467bd", |r| r.masked)]),
    ];
    let height = PANEL * panels.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (place, (title, lines)) in panels.into_iter().enumerate() {
        panel(&mut svg, PANEL * place as f64 + 24.0, title, lines, rows);
    }
    let last = rows.last().map_or(0, |row| row.step + 1);
    let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">step {last}</text>\n</svg>", WIDTH - 20.0, height - 10.0);
    svg
}

fn panel(svg: &mut String, top: f64, title: &str, lines: &[Line], rows: &[Row]) {
    let (left, right, bottom) = (60.0, WIDTH - 20.0, top + PANEL - 40.0);
    let chunk = rows.len().div_ceil(POINTS).max(1);
    let series: Vec<Vec<f64>> = lines
        .iter()
        .map(|(_, _, value)| rows.chunks(chunk).map(|rows| rows.iter().map(value).sum::<f64>() / rows.len() as f64).collect())
        .collect();
    let highest = series.iter().flatten().copied().fold(1e-9, f64::max);
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{title}</text>", top - 6.0);
    for tick in 0..=4 {
        let value = highest * f64::from(tick) / 4.0;
        let y = bottom - (bottom - top) * f64::from(tick) / 4.0;
        let _ = writeln!(svg, "<line x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.3}</text>", left - 6.0, y + 4.0);
    }
    for (place, ((name, colour, _), values)) in lines.iter().zip(&series).enumerate() {
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(at, value)| {
                let x = left + (right - left) * (at as f64 + 0.5) / values.len() as f64;
                format!("{x:.1},{:.1}", bottom - (bottom - top) * value / highest)
            })
            .collect();
        let _ = writeln!(svg, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>", points.join(" "));
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{name}</text>", right - 110.0, top + 14.0 * (place + 1) as f64);
    }
}
