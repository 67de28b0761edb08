//! Notices that the picture has become another one: a cut in a recording, a camera that was turned away in between.
//!
//! ```text
//! means of 8 x 6 blocks, from 16 pixels each;  change = mean difference of the blocks, the common part (brighter, darker) taken out
//! a jump: the change is large, and several times as large as it has been of late
//! ```
//!
//! Scenes of moving things at 15 frames a second change by 1 to 5 levels, at 3 frames a second by up to 20, and another scene is 13 to 40
//! levels away (60 scenes of this program, 2026-11-30). A lamp that is switched on may look like a cut here: who asks looks at the masks, too.

use super::colour::components;
use crate::data::Frame;

const COLUMNS: usize = 8;
const ROWS: usize = 6;
const BLOCKS: usize = COLUMNS * ROWS;

/// Pixels along a side of a block.
const SAMPLES: usize = 4;

/// Levels that no jump is below, and how many times the usual change it is.
const CHANGE_MIN: f32 = 10.0;
const TIMES_USUAL: f32 = 4.0;

/// Frames that are further apart, nanoseconds, may show anything.
const GAP_MAX_NS: u64 = 250_000_000;

/// How much the newest change counts in the usual one.
const USUAL_SHARE: f32 = 0.2;

/// Compares each frame with the one before.
#[derive(Debug, Default)]
pub struct CutDetector {
    last: Option<([f32; BLOCKS], u64)>,
    /// Of late; `None` until there was one.
    usual: Option<f32>,
}

impl CutDetector {
    /// Whether the picture has jumped since the last call; never at the first two.
    pub fn look(&mut self, frame: &Frame) -> bool {
        let blocks = means(frame);
        let Some((last, last_ns)) = self.last.replace((blocks, frame.captured_ns)) else { return false };
        let differences: [f32; BLOCKS] = std::array::from_fn(|block| blocks[block] - last[block]);
        let common = differences.iter().sum::<f32>() / BLOCKS as f32;
        let change = differences.iter().map(|difference| (difference - common).abs()).sum::<f32>() / BLOCKS as f32;
        let Some(usual) = self.usual else {
            self.usual = Some(change);
            return false;
        };
        let limit = CHANGE_MIN.max(TIMES_USUAL * usual);
        // one jump does not make the next one usual, many do
        self.usual = Some(usual + USUAL_SHARE * (change.min(limit) - usual));
        change > limit && frame.captured_ns.saturating_sub(last_ns) <= GAP_MAX_NS
    }

    pub fn forget(&mut self) {
        *self = CutDetector::default();
    }
}

fn means(frame: &Frame) -> [f32; BLOCKS] {
    let (width, height) = (frame.width as usize, frame.height as usize);
    std::array::from_fn(|block| {
        let (column, row) = (block % COLUMNS, block / COLUMNS);
        let mut sum = 0;
        for y in (0..SAMPLES).map(|y| (2 * (row * SAMPLES + y) + 1) * height / (2 * ROWS * SAMPLES)) {
            for x in (0..SAMPLES).map(|x| (2 * (column * SAMPLES + x) + 1) * width / (2 * COLUMNS * SAMPLES)) {
                sum += components(frame, x, y).map(u32::from).iter().sum::<u32>();
            }
        }
        sum as f32 / (3 * SAMPLES * SAMPLES) as f32
    })
}
