//! Scores of clips as a table for people and as JSON for programs.

use hotcoco::metrics::panoptic::{PqCounts, pq_average};
use serde_json::{Map, Value, json};

use super::association::Quality;
use super::switches::Switches;
use super::{Sums, tubes};
use crate::datasets::labels::Class;
use crate::evaluate::scores::percent;

/// The scores of all clips, or of one.
#[derive(Debug, Clone)]
struct Scores {
    /// PQ of tubes of all classes, things and stuff, for each length of window.
    windows: Vec<[Option<f64>; 3]>,
    quality: Quality,
    switches: Switches,
}

/// Everything that is told.
pub struct Outcome {
    classes: Vec<Class>,
    frames: usize,
    clips: Vec<(String, usize, Scores)>,
    all: Option<Scores>,
    /// VPQ, AQ and IoU, and switches, of each class.
    per_class: Vec<(Option<f64>, Quality, Switches)>,
}

fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.flatten().collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn pq<'a>(counts: impl Iterator<Item = &'a PqCounts>) -> Option<f64> {
    let (scores, seen) = pq_average(counts);
    (seen > 0).then_some(scores.pq)
}

impl Scores {
    fn of(sums: &Sums, classes: &[Class]) -> Scores {
        let group = |counts: &[PqCounts], thing: Option<bool>| {
            let belongs = |class: &Class| thing.is_none_or(|thing| (class.is_thing != Some(false)) == thing);
            pq(counts.iter().zip(classes).filter(|(_, class)| belongs(class)).map(|(counts, _)| counts))
        };
        let windows = sums.windows.iter().map(|counts| [None, Some(true), Some(false)].map(|thing| group(counts, thing))).collect();
        let add = |all: Switches, one: &Switches| Switches {
            switches: all.switches + one.switches,
            matched: all.matched + one.matched,
            things: all.things + one.things,
        };
        Scores { windows, quality: sums.association.quality(), switches: sums.switches.iter().fold(Switches::default(), add) }
    }

    /// Over the lengths of windows.
    fn vpq(&self) -> [Option<f64>; 3] {
        [0, 1, 2].map(|group| mean(self.windows.iter().map(|window| window[group])))
    }

    fn json(&self) -> Map<String, Value> {
        let groups = |[all, things, stuff]: [Option<f64>; 3]| json!({ "all": all, "things": things, "stuff": stuff });
        let windows = tubes::WINDOWS.iter().zip(&self.windows).map(|(k, window)| (k.to_string(), groups(*window)));
        let mut vpq = groups(self.vpq());
        vpq["windows"] = Value::Object(windows.collect());
        let Quality { stq, aq, sq } = self.quality;
        let Switches { switches, matched, things } = self.switches;
        let document = json!({ "vpq": vpq, "stq": stq, "aq": aq, "sq": sq, "id_switches": switches, "matched": matched, "things": things });
        document.as_object().cloned().unwrap_or_default()
    }
}

impl Outcome {
    pub fn new(classes: Vec<Class>) -> Outcome {
        Outcome { classes, frames: 0, clips: Vec::new(), all: None, per_class: Vec::new() }
    }

    pub fn add_clip(&mut self, name: &str, frames: usize, sums: &Sums) {
        self.frames += frames;
        self.clips.push((name.to_owned(), frames, Scores::of(sums, &self.classes)));
    }

    /// The sums over all clips.
    pub fn finish(&mut self, sums: &Sums) {
        self.all = Some(Scores::of(sums, &self.classes));
        let vpq = |class: usize| mean(sums.windows.iter().map(|counts| pq(std::iter::once(&counts[class]))));
        let of_class = |class: usize| (vpq(class), sums.association.of_class(class), sums.switches[class]);
        self.per_class = (0..self.classes.len()).map(of_class).collect();
    }

    pub fn json(&self) -> Value {
        let mut document = Map::new();
        document.insert("task".to_owned(), json!("video"));
        document.insert("frames".to_owned(), json!(self.frames));
        document.extend(self.all.iter().flat_map(Scores::json));
        let class = |(class, (vpq, quality, switches)): (&Class, &(Option<f64>, Quality, Switches))| {
            let Switches { switches, matched, things } = *switches;
            let row =
                json!({ "vpq": vpq, "aq": quality.aq, "iou": quality.sq, "id_switches": switches, "matched": matched, "things": things });
            (class.name.clone(), row)
        };
        document.insert("per_class".to_owned(), Value::Object(self.classes.iter().zip(&self.per_class).map(class).collect()));
        let clip = |(name, frames, scores): &(String, usize, Scores)| {
            let mut clip = scores.json();
            clip.insert("frames".to_owned(), json!(frames));
            (name.clone(), Value::Object(clip))
        };
        document.insert("clips".to_owned(), Value::Object(self.clips.iter().map(clip).collect()));
        Value::Object(document)
    }

    pub fn table(&self) -> Vec<String> {
        let Some(all) = &self.all else { return Vec::new() };
        let line =
            |name: &str, values: &[String]| format!("{name:<22} {}", values.iter().map(|value| format!("{value:>14}")).collect::<String>());
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut lines = vec![line("", &words(&["all", "things", "stuff"]))];
        for (k, window) in tubes::WINDOWS.iter().zip(&all.windows) {
            lines.push(line(&format!("vpq, {k} frames"), &window.map(percent)));
        }
        lines.push(line("vpq", &all.vpq().map(percent)));
        let Quality { stq, aq, sq } = all.quality;
        lines.push(line("", &words(&["stq", "aq", "sq"])));
        lines.push(line("", &[stq, aq, sq].map(percent)));
        let Switches { switches, matched, things } = all.switches;
        lines.push(format!("id switches: {switches}; {matched} of {things} things in {} frames are matched", self.frames));
        lines.push(line("class", &words(&["vpq", "aq", "iou", "id switches"])));
        for (class, (vpq, quality, switches)) in self.classes.iter().zip(&self.per_class) {
            let number = if class.is_thing == Some(false) { "-".to_owned() } else { switches.switches.to_string() };
            lines.push(line(&class.name, &[percent(*vpq), percent(quality.aq), percent(quality.sq), number]));
        }
        if self.clips.len() > 1 {
            lines.push(line("clip", &words(&["vpq", "stq", "id switches"])));
            for (name, _, scores) in &self.clips {
                lines.push(line(name, &[percent(scores.vpq()[0]), percent(scores.quality.stq), scores.switches.switches.to_string()]));
            }
        }
        lines
    }
}
