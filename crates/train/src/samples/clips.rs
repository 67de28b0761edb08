//! Clips to learn from: windows of frames of annotated clips, each window augmented as one.

use std::path::Path;

use anyhow::{Result, bail};
use eomt_edge_core::scenes::Rng;
use eomt_edge_host::files;
use eomt_edge_tools::datasets::labels::Class;
use eomt_edge_tools::evaluate::video::{Clip, open_clips};

use super::{MAX_PIXELS, Order, Sample, annotated, augment, cut_all, permuted};

/// Annotated clips, and the windows that the run learns from.
pub(crate) struct Clips {
    clips: Vec<Clip>,
    /// Clip and first frame of each window.
    windows: Vec<(usize, usize)>,
    /// Frames of a window.
    frames: usize,
    fingerprint: String,
}

impl Clips {
    /// Opens a clip or a folder of clips, as `evaluate --video` reads them, and checks all their files.
    ///
    /// # Errors
    /// When a file is missing or broken, classes differ between clips, or no clip has `frames` frames.
    pub fn open(directory: &Path, frames: usize) -> Result<Clips> {
        let clips = open_clips(directory, MAX_PIXELS)?;
        let mut fingerprint = String::new();
        for clip in &clips {
            clip.dataset.check_sizes()?;
            fingerprint += &clip.dataset.fingerprint()?;
        }
        let of_clip =
            |(number, clip): (usize, &Clip)| (0..(clip.frames.len() + 1).saturating_sub(frames)).map(move |first| (number, first));
        let windows: Vec<(usize, usize)> = clips.iter().enumerate().flat_map(of_clip).collect();
        if windows.is_empty() {
            let longest = clips.iter().map(|clip| clip.frames.len()).max().unwrap_or(0);
            bail!("{}: no clip has the {frames} frames of --frames; the longest has {longest}", directory.display());
        }
        Ok(Clips { clips, windows, frames, fingerprint: files::sha256(fingerprint.as_bytes()) })
    }

    /// Those of every clip.
    pub fn classes(&self) -> &[Class] {
        self.clips[0].dataset.classes()
    }

    /// For the recipe: it must not change when a run is resumed.
    pub fn describe(&self) -> String {
        let (clips, windows, frames, hash) = (self.clips.len(), self.windows.len(), self.frames, &self.fingerprint);
        format!("{clips} clips, {windows} windows of {frames} frames (JSON {hash:.12})")
    }

    /// The frames of the clip at `place` of the batch of `step`. Their targets hold the same objects, with empty masks where one is not to be seen.
    pub fn sample(&self, order: &Order, step: u64, place: usize) -> Result<Vec<Sample>> {
        let position = step * order.batch as u64 + place as u64;
        let count = self.windows.len() as u64;
        let (clip, first) = self.windows[permuted(position % count, count, Rng::new(order.seed, position / count).bits()) as usize];
        let clip = &self.clips[clip];
        let mut objects = vec![];
        let mut pictures = vec![];
        for &frame in &clip.frames[first..first + self.frames] {
            let picture = annotated(&clip.dataset, frame, &mut objects)?;
            // the same draws for all frames: they are scaled, cropped, mirrored and coloured alike
            pictures.push(augment(picture, order, &mut Rng::new(order.seed ^ 0xa06, position)));
        }
        let seen: Vec<usize> = (0..objects.len()).filter(|object| pictures.iter().any(|picture| picture.shows(*object))).collect();
        let classes: Vec<usize> = seen.iter().map(|object| objects[*object].1).collect();
        Ok(pictures.into_iter().map(|picture| cut_all(picture, order, &seen, &classes)).collect())
    }
}
