//! Checks whether the rows of a pipe's frames have the configured stride.
//!
//! Read with a wrong stride, a picture is sheared: a pixel resembles its neighbour one true stride further, not the one in the next
//! row. Each block of a frame votes for the stride that fits clearly better; noise, fine patterns and smooth areas do not vote. A
//! slanted pattern may fit another stride by chance, but not at the edges of the configured rows, where the end of a row touches the
//! start of the next. Only the first plane is read (luma, or all of a packed format).

use eomt_edge_core::data::{PixelFormat, RawLayout, Stride};

/// Frames with a clear result, and frames in all, after which the check ends.
const CLEAR_MAX: u32 = 3;
const FRAMES_MAX: u32 = 60;

/// Levels between two pixels that count as different.
const STEP: u8 = 12;
const BLOCK: usize = 16;
/// Votes that another stride needs, and their least ratio to the votes against it.
const VOTES_MIN: usize = 12;
const SHARE_MIN: usize = 8;
/// Columns of blocks that must vote for it: padding itself stays in one where the stride is right, and wanders where it is wrong.
const COLUMNS_MIN: usize = 3;

/// Looks at the first frames of a source.
#[derive(Debug)]
pub(super) struct StrideCheck {
    format: PixelFormat,
    size: (u32, u32),
    stride: Stride,
    clear: u32,
    frames: u32,
}

impl StrideCheck {
    pub fn new(format: PixelFormat, size: (u32, u32), stride: Stride) -> StrideCheck {
        StrideCheck { format, size, stride, clear: 0, frames: 0 }
    }

    /// The stride that a raw frame seems to have, if it is another one; returned once.
    pub fn look(&mut self, raw: &[u8]) -> Option<Stride> {
        if self.clear >= CLEAR_MAX || self.frames >= FRAMES_MAX {
            return None;
        }
        self.frames += 1;
        let ours = self.first_row(self.stride)?;
        let mut best: Option<(usize, Stride)> = None;
        for stride in self.candidates() {
            let Some(theirs) = self.first_row(stride).filter(|theirs| *theirs != ours) else { continue };
            let votes = self.votes(raw, ours, theirs);
            if votes.for_it + votes.against >= VOTES_MIN && votes.for_it < votes.against {
                self.clear += u32::from(best.is_none());
            }
            let enough = votes.for_it >= VOTES_MIN.max(SHARE_MIN * votes.against) && votes.columns >= COLUMNS_MIN && votes.edge_allows;
            if enough && best.is_none_or(|(most, _)| votes.for_it > most) {
                best = Some((votes.for_it, stride));
            }
        }
        best.map(|(_, stride)| {
            self.clear = CLEAR_MAX;
            stride
        })
    }

    /// The strides that programs and drivers use.
    fn candidates(&self) -> Vec<Stride> {
        let row = self.first_row(Stride::Tight).unwrap_or_default();
        let rounded = [16, 32, 64, 128, 256].map(|to| Stride::Bytes(row.next_multiple_of(to) as u32));
        [Stride::Tight, Stride::GStreamer, Stride::Pi5].into_iter().chain(rounded).collect()
    }

    /// Bytes from row to row of the first plane.
    fn first_row(&self, stride: Stride) -> Option<usize> {
        RawLayout::new(self.format, self.size, stride).ok()?.planes().first().map(|plane| plane.stride)
    }

    /// How the blocks of the first plane vote between two strides.
    fn votes(&self, raw: &[u8], ours: usize, theirs: usize) -> Votes {
        // as far as both readings have the first plane
        let far = ours.max(theirs);
        let rows = (self.size.1 as usize).min(raw.len() / ours);
        let plane = &raw[..(rows * ours.min(theirs)).min(raw.len())];
        let padding = ours.abs_diff(theirs);
        // the same channel of the next pixel
        let pixel = match self.format {
            PixelFormat::Rgb24 | PixelFormat::Bgr24 => 3,
            PixelFormat::Rgb565 | PixelFormat::Grey16 => 2,
            PixelFormat::Rgbx | PixelFormat::Xrgb | PixelFormat::Bgrx | PixelFormat::Xbgr => 4,
            PixelFormat::Yuyv | PixelFormat::Uyvy | PixelFormat::Yvyu | PixelFormat::Vyuy => 4,
            _ => 1,
        };
        let (mut votes, mut edge) = (Votes::default(), [0; 2]);
        for block in 0..ours.div_ceil(BLOCK) {
            let before = votes.for_it;
            for band in 0..rows / BLOCK {
                let (mut better, mut misfits, mut wrapped) = ([0usize; 2], [0usize; 2], [0usize; 2]);
                for y in band * BLOCK..(band + 1) * BLOCK {
                    for x in block * BLOCK..((block + 1) * BLOCK).min(ours) {
                        let at = y * ours + x;
                        if at < pixel || at + far >= plane.len() {
                            continue;
                        }
                        let next = [at - pixel, at + pixel].map(|next| plane[at].abs_diff(plane[next]));
                        if next[0].min(next[1]) > STEP {
                            continue;
                        }
                        let [a, b] = [ours, theirs].map(|lag| plane[at].abs_diff(plane[at + lag]));
                        // where the other stride leads into another row
                        let wraps = if theirs > ours { x + padding >= ours } else { x < padding };
                        for (which, misfit) in [a >= STEP, b >= STEP].into_iter().enumerate() {
                            misfits[which] += usize::from(misfit);
                            wrapped[which] += usize::from(misfit && wraps);
                        }
                        let which = if a >= b.saturating_add(STEP) { 1 } else { usize::from(b < a.saturating_add(STEP)) * 2 };
                        if which < 2 {
                            better[which] += 1;
                        }
                    }
                }
                let [against, for_it] = better;
                // a slanted pattern may fit less badly, but it does not fit
                let (speaks_for, speaks_against) = (for_it > 2 * against + 4 && 4 * misfits[1] <= misfits[0], against > 2 * for_it + 4);
                votes.for_it += usize::from(speaks_for);
                votes.against += usize::from(speaks_against);
                if speaks_for || speaks_against {
                    edge = [edge[0] + wrapped[0], edge[1] + wrapped[1]];
                }
            }
            votes.columns += usize::from(votes.for_it > before);
        }
        votes.edge_allows = 4 * edge[1] <= edge[0];
        votes
    }
}

#[derive(Debug, Default)]
struct Votes {
    for_it: usize,
    columns: usize,
    against: usize,
    /// The edges of the rows do not speak against it.
    edge_allows: bool,
}
