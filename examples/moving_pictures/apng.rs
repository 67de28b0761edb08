//! Pictures as one APNG of at most 256 colours.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// One picture of a film.
pub struct Picture {
    pub width: u32,
    pub height: u32,
    /// `[height, width, 3]`.
    pub rgb: Vec<u8>,
    /// How long it stays, milliseconds.
    pub shown_ms: u16,
}

/// Writes `pictures`, all of one size, as an endless APNG.
///
/// # Errors
/// When there is no picture, their sizes differ, or the file cannot be written.
pub fn write(path: &Path, pictures: &[Picture]) -> Result<(), Box<dyn Error>> {
    let Some(Picture { width, height, .. }) = pictures.first() else { return Err("there is no picture".into()) };
    let palette = Palette::of(pictures);
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), *width, *height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette.colours.concat());
    encoder.set_compression(png::Compression::High);
    // filters predict levels, and indices are none
    encoder.set_filter(png::Filter::NoFilter);
    encoder.set_animated(pictures.len() as u32, 0)?;
    let mut writer = encoder.write_header()?;
    for picture in pictures {
        if (picture.width, picture.height) != (*width, *height) {
            return Err("the pictures differ in size".into());
        }
        writer.set_frame_delay(picture.shown_ms, 1000)?;
        writer.write_image_data(&palette.indices(&picture.rgb))?;
    }
    Ok(writer.finish()?)
}

/// Colours are told apart by their upper bits, so many a channel.
const BITS: u32 = 6;

/// A colour's place among the `2^(3 BITS)` that are told apart.
fn cell(pixel: &[u8]) -> usize {
    pixel.iter().fold(0, |cell, &level| cell << BITS | usize::from(level) >> (8 - BITS))
}

/// The colours that stand for all, and which of them stands for each.
struct Palette {
    colours: Vec<[u8; 3]>,
    of_cell: Vec<u8>,
}

/// Pixels of one cell: their number and the sums of their levels.
#[derive(Clone, Copy, Default)]
struct Tally {
    cell: usize,
    count: u64,
    sums: [u64; 3],
}

impl Tally {
    fn level(&self, channel: usize) -> u64 {
        self.sums[channel] / self.count.max(1)
    }
}

impl Palette {
    /// Median cut (Heckbert, "Color image quantization for frame buffer display", 1982): the box with the most pixels times its longest
    /// side is cut where half of its pixels lie, until there are 256.
    fn of(pictures: &[Picture]) -> Palette {
        let mut tallies = vec![Tally::default(); 1 << (3 * BITS)];
        for pixel in pictures.iter().flat_map(|picture| picture.rgb.chunks_exact(3)) {
            let tally = &mut tallies[cell(pixel)];
            (tally.cell, tally.count) = (cell(pixel), tally.count + 1);
            tally.sums.iter_mut().zip(pixel).for_each(|(sum, &level)| *sum += u64::from(level));
        }
        tallies.retain(|tally| tally.count > 0);
        let mut boxes = vec![tallies];
        while boxes.len() < 256 {
            let widest = |tallies: &Vec<Tally>| longest_side(tallies).1 * tallies.iter().map(|tally| tally.count).sum::<u64>();
            let Some(at) = (0..boxes.len()).filter(|&at| boxes[at].len() > 1).max_by_key(|&at| widest(&boxes[at])) else { break };
            let rest = cut(&mut boxes[at]);
            boxes.push(rest);
        }
        let mut of_cell = vec![0; 1 << (3 * BITS)];
        for (index, tallies) in boxes.iter().enumerate() {
            tallies.iter().for_each(|tally| of_cell[tally.cell] = index as u8);
        }
        Palette { colours: boxes.iter().map(|tallies| mean(tallies)).collect(), of_cell }
    }

    fn indices(&self, rgb: &[u8]) -> Vec<u8> {
        rgb.chunks_exact(3).map(|pixel| self.of_cell[cell(pixel)]).collect()
    }
}

/// The channel in which the colours lie furthest apart, and how far.
fn longest_side(tallies: &[Tally]) -> (usize, u64) {
    let side = |channel: usize| {
        let levels = || tallies.iter().map(|tally| tally.level(channel));
        levels().max().unwrap_or(0) - levels().min().unwrap_or(0)
    };
    (0..3).map(|channel| (channel, side(channel))).max_by_key(|(_, side)| *side).unwrap_or((0, 0))
}

/// Keeps one half of the pixels in `tallies` (two cells at least) and returns the other.
fn cut(tallies: &mut Vec<Tally>) -> Vec<Tally> {
    let (channel, _) = longest_side(tallies);
    tallies.sort_by_key(|tally| tally.level(channel));
    let half = tallies.iter().map(|tally| tally.count).sum::<u64>() / 2;
    let mut seen = 0;
    let middle = tallies.iter().position(|tally| {
        seen += tally.count;
        seen > half
    });
    tallies.split_off(middle.unwrap_or(0).clamp(1, tallies.len() - 1))
}

fn mean(tallies: &[Tally]) -> [u8; 3] {
    let count = tallies.iter().map(|tally| tally.count).sum::<u64>().max(1);
    std::array::from_fn(|channel| (tallies.iter().map(|tally| tally.sums[channel]).sum::<u64>() / count) as u8)
}
