//! A dataset as `train` and `evaluate` see it: an opened format, the images in use, and the checks before work begins.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, bail};
use eomt_edge_core::data::{Exif, Task};
use eomt_edge_host::files;
use eomt_edge_host::pictures::size as picture_size;

use super::find::some_of;
use super::format::{Format, GroundTruth, Image, NamedBy, Opening};
use super::labels::{Class, ClassMap, Labels, PanopticMap};
use super::maps::Map;
use crate::progress;

/// The most images whose masks are read before training. Of more, this many are, evenly spread.
const CHECKED_MAX: usize = 256;

/// The images of a dataset that are in use. They are known by their place, from 0.
pub struct Dataset {
    ground_truth: Box<dyn GroundTruth>,
    /// Places of the images in use.
    kept: Vec<usize>,
    exif: Exif,
}

impl Dataset {
    /// Reads lists and names. `labels` name the classes of class maps where nothing else does; PNGs of more than `max_pixels` are refused.
    ///
    /// # Errors
    /// A sentence that names the file, when it is missing, of another kind, or has no image.
    pub fn open(format: &dyn Format, images: Option<&Path>, labels: Option<&[String]>, (max_pixels, exif): (u64, Exif)) -> Result<Dataset> {
        let ground_truth = format.open(&Opening { images: images.unwrap_or(Path::new("")), labels, max_pixels, exif })?;
        if ground_truth.images().is_empty() {
            bail!("{}: there is no image to work on: the ground truth is empty", ground_truth.source().display());
        }
        let mut seen = HashMap::new();
        for (place, image) in ground_truth.images().iter().enumerate() {
            for file in [Some(image.path.as_path()), ground_truth.file(place)].into_iter().flatten() {
                if let Some(other) = seen.insert(file, image.id.as_str()).filter(|other| *other != image.id) {
                    bail!("{}: images {other} and {} are both {}", ground_truth.source().display(), image.id, file.display());
                }
            }
        }
        let kept = (0..ground_truth.images().len()).collect();
        Ok(Dataset { ground_truth, kept, exif })
    }

    fn source(&self) -> &Path {
        self.ground_truth.source()
    }

    /// All classes; empty for anomaly masks.
    pub fn classes(&self) -> &[Class] {
        self.ground_truth.classes()
    }

    /// Where the names of the classes come from.
    pub fn named_by(&self) -> NamedBy {
        self.ground_truth.named_by()
    }

    /// The task that the format is for; `None` when it serves all.
    pub fn natural_task(&self) -> Option<Task> {
        self.ground_truth.natural_task()
    }

    /// Whether EXIF orientations count.
    pub fn exif(&self) -> Exif {
        self.exif
    }

    /// The number of images in use, at least 1.
    #[allow(clippy::len_without_is_empty)] // a dataset without an image does not open
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// The image at `index`, below [`Dataset::len`].
    pub fn image(&self, index: usize) -> &Image {
        &self.ground_truth.images()[self.kept[index]]
    }

    /// The images in use, in their order.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.kept.iter().map(|place| &self.ground_truth.images()[*place])
    }

    /// Keeps the first images only.
    pub fn truncate(&mut self, count: usize) {
        self.kept.truncate(count);
    }

    /// Keeps of every `every` images in the order of the annotations the last one, or, unless `held_out`, all the others.
    pub fn hold_out(&mut self, every: usize, held_out: bool) {
        self.kept.retain(|place| (place % every == every - 1) == held_out);
    }

    /// The ground truth of an image in the form that `task` compares.
    ///
    /// # Errors
    /// When the masks are missing or broken, or the format does not serve the task.
    pub fn labels(&self, index: usize, task: Task) -> Result<Labels> {
        self.ground_truth.labels(self.kept[index], task)
    }

    /// The segments of an image as training takes them, at most one per pixel.
    ///
    /// # Errors
    /// When the masks are missing, broken or of another size than the image, or the format has no segments.
    pub fn segments(&self, index: usize) -> Result<PanopticMap> {
        self.ground_truth.segments(self.kept[index])
    }

    /// The anomaly mask of an image, values as they are in the file, and its file.
    ///
    /// # Errors
    /// When the PNG is missing or broken, or the format marks no anomalies.
    pub fn anomaly_mask(&self, index: usize) -> Result<(&Path, Map<u16>)> {
        let place = self.kept[index];
        let mask = self.ground_truth.anomaly_mask(place)?;
        Ok((self.ground_truth.file(place).unwrap_or(self.source()), mask))
    }

    /// The classes of a predicted PNG, whose values mean what those of the dataset mean.
    ///
    /// # Errors
    /// When the PNG is missing or broken, or has a value that is no class.
    pub fn predicted_classes(&self, png: &Path) -> Result<ClassMap> {
        self.ground_truth.predicted_classes(png)
    }

    /// SHA-256 of what identifies the contents, in hexadecimal.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        Ok(files::sha256(&self.ground_truth.fingerprint()?))
    }

    /// Refuses a dataset whose pictures are missing, by name.
    ///
    /// # Errors
    /// When a picture does not exist.
    pub fn check_pictures(&self) -> Result<()> {
        let missing: Vec<String> =
            self.images().filter(|image| !image.path.is_file()).map(|image| image.path.display().to_string()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (source, all) = (self.source().display(), self.len());
        bail!("{source}: {} of its {all} pictures do not exist: {}", missing.len(), some_of(&missing))
    }

    /// Refuses pictures whose annotations have another size. Reads the headers of all files.
    ///
    /// # Errors
    /// When sizes differ, or a file cannot be read.
    pub fn check_sizes(&self) -> Result<()> {
        let (mut wrong, mut turned) = (Vec::new(), Vec::new());
        let bar = progress::bar(self.len() as u64, "checking pictures");
        for (&place, image) in self.kept.iter().zip(self.images()) {
            let found = picture_size(&image.path, self.exif)?;
            let ground_truth = self.ground_truth.size(place)?;
            let ((width, height), (across, down)) = (found.shown, ground_truth);
            if found.shown != ground_truth {
                let aside = found.turned && (height, width) == ground_truth;
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
            bail!("{}: {} pictures are of another size than their ground truth: {}", self.source().display(), wrong.len(), some_of(&wrong));
        }
        if !turned.is_empty() {
            log::warn!(
                "{}: an EXIF orientation turns these pictures before they are learned from; if their annotators saw them unturned, --exif ignore: {}",
                self.source().display(),
                some_of(&turned)
            );
        }
        Ok(())
    }

    /// Takes away the images that show nothing to learn, and names them in a warning.
    ///
    /// # Errors
    /// When none is left.
    pub fn keep_annotated(&mut self) -> Result<()> {
        let Dataset { ground_truth, kept, .. } = self;
        let source = ground_truth.source().display();
        let bare: Vec<&str> =
            kept.iter().filter(|place| !ground_truth.has_masks(**place)).map(|place| ground_truth.images()[*place].name.as_str()).collect();
        if bare.len() == kept.len() {
            bail!("{source}: no picture has a mask to learn from");
        }
        if !bare.is_empty() {
            log::warn!("{source}: {} pictures without a mask are skipped: {}", bare.len(), some_of(&bare));
        }
        kept.retain(|place| ground_truth.has_masks(*place));
        Ok(())
    }

    /// Reads the masks (of a large dataset, some), to find a broken one before the first step, and warns about classes that do not occur.
    ///
    /// # Errors
    /// When a mask is broken, or no mask shows a class.
    pub fn check_content(&self) -> Result<()> {
        let count = self.len().min(CHECKED_MAX);
        let mut seen = vec![false; self.classes().len()];
        let bar = progress::bar(count as u64, "checking masks");
        for at in 0..count {
            let map = self.segments(at * self.len() / count)?;
            map.segments.iter().filter(|segment| segment.area > 0 && !segment.crowd).for_each(|segment| seen[segment.class] = true);
            bar.inc(1);
        }
        bar.finish_and_clear();
        if !seen.contains(&true) {
            bail!("{}: no pixel of the ground truth is of a class that counts, so there is nothing to learn", self.source().display());
        }
        let unseen: Vec<&str> =
            self.classes().iter().zip(&seen).filter(|(_, seen)| !**seen).map(|(class, _)| class.name.as_str()).collect();
        if !unseen.is_empty() && count == self.len() {
            log::warn!("{}: there is nothing to learn {} classes from: {}", self.source().display(), unseen.len(), some_of(&unseen));
        }
        Ok(())
    }

    /// Warns about images whose list of objects is empty: perhaps they are not annotated yet.
    pub fn warn_of_empty(&self) {
        let empty = self.kept.iter().filter(|place| self.ground_truth.is_empty(**place));
        let names: Vec<&str> = empty.map(|place| self.ground_truth.images()[*place].name.as_str()).collect();
        if !names.is_empty() {
            let source = self.source().display();
            log::warn!("{source}: {} pictures show no object, and every prediction on them is wrong: {}", names.len(), some_of(&names));
        }
    }

    /// Refuses a task for which the dataset shows nothing.
    ///
    /// # Errors
    /// A sentence that names the file and says what is missing.
    pub fn check_task(&self, task: Task) -> Result<()> {
        self.ground_truth.check_task(task)
    }

    /// The error for a dataset of which no pixel or object counts.
    pub(crate) fn nothing(&self) -> anyhow::Error {
        anyhow::anyhow!("{}: no pixel of the ground truth is of a class that counts, so there is nothing to score", self.source().display())
    }
}
