//! What is looked at before work begins: missing pictures, other sizes, sets that show nothing.

use anyhow::{Result, bail};
use eomt_edge_core::data::Task;
use eomt_edge_host::files;

use super::find::some_of;
use super::{Dataset, Record};
use super::{Image, TruthFiles, find, maps};
use crate::progress;

/// Pictures of a set whose masks are all read before training; of more, this many are, evenly spread.
const LOOKED_AT: usize = 256;

impl Dataset {
    /// Refuses a set of which pictures are missing; names them.
    pub fn check_pictures(&self) -> Result<()> {
        let missing: Vec<String> =
            self.images.iter().filter(|image| !image.path.is_file()).map(|image| image.path.display().to_string()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (source, all) = (self.source.display(), self.images.len());
        bail!("{source}: {} of its {all} pictures do not exist: {}", missing.len(), some_of(&missing))
    }

    /// Refuses pictures of another size than their annotations; reads the heads of all files.
    pub fn check_sizes(&self) -> Result<()> {
        let (mut wrong, mut turned) = (Vec::new(), Vec::new());
        let bar = progress::bar(self.images.len() as u64, "checking pictures");
        for image in &self.images {
            let found = find::size(&image.path, self.exif)?;
            let truth = match &image.record {
                Record::Objects { size, .. } => *size,
                Record::Panoptic { png, .. } | Record::Classes { png } | Record::Anomalies { png } => maps::size(png)?,
            };
            let ((width, height), (across, down)) = (found.shown, truth);
            if found.shown != truth {
                let aside = found.turned && (height, width) == truth;
                let why = if aside {
                    " (the file's EXIF orientation turns it, and its annotators saw it unturned: --exif ignore reads it as they did)"
                } else {
                    ""
                };
                wrong.push(format!("{} has {width}x{height} pixels, and its ground truth {across}x{down}{why}", image.path.display()));
            } else if found.turned {
                turned.push(image.name.as_str());
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        if !wrong.is_empty() {
            bail!("{}: {} pictures are of another size than their ground truth: {}", self.source.display(), wrong.len(), some_of(&wrong));
        }
        if !turned.is_empty() {
            log::warn!(
                "{}: an EXIF orientation turns these pictures before they are learned from; if their annotators saw them unturned, --exif ignore: {}",
                self.source.display(),
                some_of(&turned)
            );
        }
        Ok(())
    }

    /// Takes images away that show nothing to learn, by name.
    ///
    /// # Errors
    /// When none is left.
    pub fn keep_annotated(&mut self) -> Result<()> {
        let annotated = |image: &Image| match &image.record {
            Record::Panoptic { segments, .. } => segments.iter().any(|segment| !segment.crowd),
            Record::Objects { list, .. } => list.iter().any(|object| !object.crowd),
            Record::Classes { .. } | Record::Anomalies { .. } => true,
        };
        let without: Vec<&str> = self.images.iter().filter(|image| !annotated(image)).map(|image| image.name.as_str()).collect();
        let source = self.source.display();
        if without.len() == self.images.len() {
            bail!("{source}: no picture has a mask to learn from");
        }
        if !without.is_empty() {
            log::warn!("{source}: {} pictures without a mask are skipped: {}", without.len(), some_of(&without));
        }
        self.images.retain(annotated);
        Ok(())
    }

    /// What the set is made of, to know it again.
    pub fn fingerprint(&self, truth: &TruthFiles) -> Result<String> {
        use std::fmt::Write;
        let list = match truth {
            TruthFiles::Panoptic { json, .. } => files::read(json)?,
            TruthFiles::Instances { json, crowds } => [files::read(json)?, format!("{crowds:?}").into_bytes()].concat(),
            _ => {
                let mut text = format!("{:?} {:?}", self.values, self.classes);
                for image in &self.images {
                    write!(text, "\n{} ", image.name)?;
                    match &image.record {
                        Record::Objects { size, list } => write!(text, "{size:?} {list:?}")?,
                        _ => write!(text, "{:?}", image.map().and_then(|png| png.metadata().ok()).map(|meta| meta.len()))?,
                    }
                }
                text.into_bytes()
            }
        };
        Ok(files::sha256(&list))
    }

    /// Reads masks, of a large set some, so that a broken one is found before the first step, and tells which classes do not occur.
    ///
    /// # Errors
    /// When a mask is broken, or none shows anything.
    pub fn check_content(&self) -> Result<()> {
        let count = self.images.len().min(LOOKED_AT);
        let mut seen = vec![false; self.classes.len()];
        let bar = progress::bar(count as u64, "checking masks");
        for at in 0..count {
            let map = self.segments(at * self.images.len() / count)?;
            map.segments.iter().filter(|segment| segment.area > 0 && !segment.crowd).for_each(|segment| seen[segment.class] = true);
            bar.inc(1);
        }
        bar.finish_and_clear();
        if !seen.contains(&true) {
            bail!("{}: no pixel of the ground truth is of a class that counts, so there is nothing to learn", self.source.display());
        }
        let unseen: Vec<&str> = self.classes.iter().zip(&seen).filter(|(_, seen)| !**seen).map(|(class, _)| class.name.as_str()).collect();
        if !unseen.is_empty() && count == self.images.len() {
            log::warn!("{}: there is nothing to learn {} classes from: {}", self.source.display(), unseen.len(), some_of(&unseen));
        }
        Ok(())
    }

    /// Names the pictures of a list of objects that show none: they may not have been annotated yet.
    pub fn tell_of_empty(&self) {
        let is_empty = |record: &Record| matches!(record, Record::Objects { list, .. } if list.is_empty());
        let names: Vec<&str> = self.images.iter().filter(|image| is_empty(&image.record)).map(|image| image.name.as_str()).collect();
        if !names.is_empty() {
            let source = self.source.display();
            log::warn!("{source}: {} pictures show no object, and whatever is found on them is wrong: {}", names.len(), some_of(&names));
        }
    }

    /// Refuses a task for which the truth shows nothing.
    pub fn check_task(&self, task: Task) -> Result<()> {
        let panoptic = matches!(self.images[0].record, Record::Panoptic { .. });
        if panoptic && task == Task::Instance && self.classes.iter().all(|class| class.is_thing == Some(false)) {
            bail!(
                "{}: isthing is 0 for every category, so there is no object to find: --task instance has nothing to score",
                self.source.display()
            );
        }
        Ok(())
    }

    /// For a set of which no pixel or object counted.
    pub fn nothing(&self) -> anyhow::Error {
        anyhow::anyhow!("{}: no pixel of the ground truth is of a class that counts, so there is nothing to score", self.source.display())
    }
}
