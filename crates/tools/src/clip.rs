//! `scenes --clip`: one moving scene with its ground truth, in which an object keeps its segment id over the frames: to measure trackers.
//!
//! The camera sees the middle of a larger scene, so that objects come and go at its borders, and passes over it when it pans. A cut goes to
//! another scene: its objects have ids of their own, and floor, wall and sky keep theirs.

use std::path::PathBuf;

use anyhow::Result;
use eomt_edge_core::scenes::{Rng, Sample, Scene};
use eomt_edge_host::output::say;

use super::progress;
use super::scenes::{add, begin, categories, drop_small};

/// Ids of floor, wall and sky end here.
const BACKGROUND_LAST: u16 = 3;

/// Ids of one scene's objects.
const IDS_PER_SCENE: u16 = 16;

/// The scene is so much larger than the picture, along each side.
const MARGIN: f64 = 0.125;

/// A pan goes so far to each side, in widths of the picture.
const PAN_REACH: f64 = 0.25;

/// Options of [`clip`].
#[derive(Debug, Clone)]
pub struct ClipOptions {
    /// Directory that gets `images/`, `panoptic/` and `panoptic.json`; must not hold them yet.
    pub output: PathBuf,
    /// Number of pictures.
    pub frames: u64,
    /// A clip of one seed is the same on every machine.
    pub seed: u64,
    /// Width and height, pixels.
    pub size: (u32, u32),
    /// Frames per second.
    pub fps: f64,
    /// How fast the camera goes to and fro, widths of the picture per second.
    pub pan: f64,
    /// Deviation of the noise that is added, levels.
    pub noise: f64,
    /// Changes to another scene, evenly spread.
    pub cuts: u64,
}

/// Writes the pictures, then the JSON: a folder without it is not finished.
///
/// # Errors
/// When the directory holds a dataset already or cannot be written.
pub fn clip(options: &ClipOptions) -> Result<()> {
    let mut folder = begin(&options.output)?;
    let (width, height) = options.size;
    let bar = progress::bar(options.frames, "drawing");
    let mut camera = Camera::new(options);
    for frame in 0..options.frames {
        add(&mut folder, &options.output, &camera.picture(frame), options.size)?;
        bar.inc(1);
    }
    folder.finish(categories())?;
    bar.finish_and_clear();
    say(format!("{} frames of {width}x{height}, seed {}, in {}", options.frames, options.seed, options.output.display()))
}

/// Looks at a part of a scene.
struct Camera<'a> {
    options: &'a ClipOptions,
    /// Pixels of the whole scene.
    size: (usize, usize),
    /// Number of the shot, and its scene.
    shot: Option<(u64, Scene)>,
    rgb: Vec<u8>,
    ids: Vec<u16>,
}

impl Camera<'_> {
    fn new(options: &ClipOptions) -> Camera<'_> {
        let reach = if options.pan > 0.0 { PAN_REACH } else { 0.0 };
        let whole = |side: u32, margin: f64| side as usize + 2 * (f64::from(side) * margin) as usize;
        let size = (whole(options.size.0, MARGIN + reach), whole(options.size.1, MARGIN));
        Camera { options, size, shot: None, rgb: vec![0; 3 * size.0 * size.1], ids: vec![0; size.0 * size.1] }
    }

    /// Shot and time of a frame.
    fn picture(&mut self, frame: u64) -> Sample {
        let ClipOptions { seed, fps, noise, cuts, .. } = *self.options;
        let number = frame * (cuts + 1) / self.options.frames.max(1);
        if self.shot.as_ref().is_none_or(|(shown, _)| *shown != number) {
            // neighbouring seeds share no shot
            let scene = seed.wrapping_mul(cuts + 1).wrapping_add(number);
            self.shot = Some((number, Scene::new(scene, self.size.0 as u32, self.size.1 as u32)));
        }
        let time = frame as f64 / fps;
        let left = self.left(time);
        let Camera { shot, rgb, ids, .. } = self;
        let (_, scene) = shot.as_mut().expect("just set");
        let classes = scene.render(time, rgb, ids);
        let mut picture = self.crop(left, classes, number as u16 * IDS_PER_SCENE);
        if noise > 0.0 {
            let mut rng = Rng::new(seed ^ 0xc11b, frame);
            picture.rgb.iter_mut().for_each(|level| *level = (f64::from(*level) + noise * rng.normal()) as u8);
        }
        drop_small(&mut picture);
        picture
    }

    /// Where the picture begins in the scene: to and fro at a steady speed.
    fn left(&self, time: f64) -> usize {
        let width = f64::from(self.options.size.0);
        let middle = (self.size.0 - self.options.size.0 as usize) / 2;
        if self.options.pan <= 0.0 {
            return middle;
        }
        let turns = (self.options.pan * time / (4.0 * PAN_REACH) + 0.25) % 1.0;
        let place = if turns < 0.5 { 4.0 * turns - 1.0 } else { 3.0 - 4.0 * turns };
        (middle as f64 + place * PAN_REACH * width).round() as usize
    }

    fn crop(&self, left: usize, classes: Vec<(u16, u16)>, shift: u16) -> Sample {
        let (width, height) = (self.options.size.0 as usize, self.options.size.1 as usize);
        let top = (self.size.1 - height) / 2;
        let shifted = |id: u16| if id > BACKGROUND_LAST { id + shift } else { id };
        let (mut rgb, mut ids) = (Vec::with_capacity(3 * width * height), Vec::with_capacity(width * height));
        for y in top..top + height {
            let first = y * self.size.0 + left;
            rgb.extend_from_slice(&self.rgb[3 * first..3 * (first + width)]);
            ids.extend(self.ids[first..first + width].iter().map(|id| shifted(*id)));
        }
        Sample { rgb, ids, classes: classes.into_iter().map(|(id, class)| (shifted(id), class)).collect() }
    }
}
