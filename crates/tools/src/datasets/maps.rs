//! PNG files that store numbers: segment ids, class numbers, scores.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail};
use eomt_edge_host::{bounds, files};
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

/// The `[height, width]` values of a PNG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map<T> {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// One per pixel, row by row.
    pub values: Vec<T>,
}

/// Ids of the COCO panoptic format, R + 256 G + 65536 B.
pub(super) fn panoptic_ids(path: &Path, max_pixels: u64) -> Result<Map<u32>> {
    let raw = read(path, Transformations::EXPAND, max_pixels)?;
    let step = match (raw.colour, raw.depth) {
        (ColorType::Rgb, BitDepth::Eight) => 3,
        (ColorType::Rgba, BitDepth::Eight) => 4,
        (colour, depth) => bail!("{}: a panoptic PNG has 8-bit RGB pixels, and this has {colour:?}, {} bit", path.display(), depth as u8),
    };
    let id = |pixel: &[u8]| u32::from(pixel[0]) | u32::from(pixel[1]) << 8 | u32::from(pixel[2]) << 16;
    let values = raw.rows().flat_map(|row| row.chunks_exact(step).map(id)).collect();
    Ok(Map { width: raw.width, height: raw.height, values })
}

/// The class of each colour, where maps are coloured.
pub(crate) type Colours = HashMap<[u8; 3], u16>;

/// VOC's colour of pixels that do not count, index 255 of its palette.
const VOID: [u8; 3] = [224, 224, 192];

/// Grey values of 1 to 16 bits or palette indices, as they are in the file; the class of each colour where `colours` has it. Grey stored as
/// RGB is grey.
///
/// # Errors
/// When the PNG is missing, broken, larger than `max_pixels`, or has a colour that `colours` does not have.
pub(crate) fn values(path: &Path, colours: &Colours, max_pixels: u64) -> Result<Map<u16>> {
    let raw = read(path, Transformations::IDENTITY, max_pixels)?;
    let step = match (raw.colour, raw.depth) {
        (ColorType::Grayscale | ColorType::Indexed, _) => return Ok(grey(&raw)),
        (ColorType::Rgb, BitDepth::Eight) => 3,
        (ColorType::Rgba, BitDepth::Eight) => 4,
        (colour, depth) => {
            let file = path.display();
            bail!("{file}: grey values or palette indices are needed, and this PNG has {colour:?} pixels of {} bit", depth as u8)
        }
    };
    let mut values = Vec::with_capacity(raw.width as usize * raw.height as usize);
    let mut last = ([0; 3], None);
    for pixel in raw.rows().flat_map(|row| row.chunks_exact(step)) {
        let colour = [pixel[0], pixel[1], pixel[2]];
        if last.1.is_none() || last.0 != colour {
            let grey = || (colours.is_empty() && colour[0] == colour[1] && colour[1] == colour[2]).then(|| u16::from(colour[0]));
            let void = || (colour == VOID).then_some(255);
            last = (colour, colours.get(&colour).copied().or_else(grey).or_else(|| if colours.is_empty() { None } else { void() }));
        }
        let file = path.display();
        values.push(match last.1 {
            Some(value) => value,
            None if colours.is_empty() => bail!(
                "{file}: grey values or palette indices are needed, and this PNG is coloured ({colour:?}): a labelmap.txt beside the maps \
                 (as CVAT writes it) says which colour is which class"
            ),
            None => bail!("{file}: labelmap.txt has no class of the colour {colour:?}"),
        });
    }
    Ok(Map { width: raw.width, height: raw.height, values })
}

/// Width and height from the header of a PNG.
pub(super) fn size(path: &Path) -> Result<(u32, u32)> {
    let unreadable = || format!("{}: cannot be read", path.display());
    let file = std::io::BufReader::new(files::open(path).with_context(unreadable)?);
    let reader = Decoder::new(file).read_info().with_context(|| format!("{}: this is not a whole PNG", path.display()))?;
    Ok((reader.info().width, reader.info().height))
}

fn grey(raw: &Raw) -> Map<u16> {
    let width = raw.width as usize;
    let mut values = Vec::with_capacity(width * raw.height as usize);
    for row in raw.rows() {
        match raw.depth {
            BitDepth::Sixteen => values.extend(row.chunks_exact(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))),
            BitDepth::Eight => values.extend(row.iter().map(|byte| u16::from(*byte))),
            depth => {
                // packed, the leftmost pixel in the high bits (PNG specification, 7.2)
                let bits = depth as usize;
                let value = |x: usize| row[x * bits / 8] >> (8 - bits - x * bits % 8) & ((1 << bits) - 1);
                values.extend((0..width).map(|x| u16::from(value(x))));
            }
        }
    }
    Map { width: raw.width, height: raw.height, values }
}

/// Memory for a line of pixels and for what stands beside them, bytes.
const LINE_BYTES_MAX: usize = 16 << 20;

struct Raw {
    width: u32,
    height: u32,
    colour: ColorType,
    depth: BitDepth,
    line: usize,
    bytes: Vec<u8>,
}

impl Raw {
    fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.line.max(1)).take(self.height as usize)
    }
}

fn read(path: &Path, transformations: Transformations, max_pixels: u64) -> Result<Raw> {
    let bytes = files::read(path, &bounds::PICTURE)?;
    let refuse = || format!("{}: this is not a whole PNG", path.display());
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: LINE_BYTES_MAX });
    decoder.set_transformations(transformations);
    let mut reader = decoder.read_info().with_context(refuse)?;
    let (width, height) = (reader.info().width, reader.info().height);
    if u64::from(width) * u64::from(height) > max_pixels {
        bail!("{}: {width}x{height} pixels are more than the {max_pixels} allowed", path.display());
    }
    let mut bytes = vec![0; reader.output_buffer_size().with_context(refuse)?];
    let info = reader.next_frame(&mut bytes).with_context(refuse)?;
    Ok(Raw { width, height, colour: info.color_type, depth: info.bit_depth, line: info.line_size, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(colour: ColorType, depth: BitDepth, size: (u32, u32), data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, size.0, size.1);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        encoder.set_palette(vec![7; 12]);
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    #[test]
    fn indices_and_grey_values_stay_as_they_are() {
        let path = std::env::temp_dir().join(format!("eomt-edge-maps-{}.png", std::process::id()));
        let cases: [(ColorType, BitDepth, &[u8], [u16; 3]); 4] = [
            (ColorType::Indexed, BitDepth::Two, &[0b11_01_10_00], [3, 1, 2]),
            (ColorType::Grayscale, BitDepth::Eight, &[0, 255, 9], [0, 255, 9]),
            (ColorType::Grayscale, BitDepth::Sixteen, &[1, 0, 0, 2, 255, 255], [256, 2, 65535]),
            (ColorType::Grayscale, BitDepth::One, &[0b101_00000], [1, 0, 1]),
        ];
        for (colour, depth, data, expected) in cases {
            std::fs::write(&path, png(colour, depth, (3, 1), data)).unwrap();
            assert_eq!(values(&path, &Colours::new(), 99).unwrap().values, expected, "{colour:?} {depth:?}");
        }
        assert!(values(&path, &Colours::new(), 2).unwrap_err().to_string().contains("3x1"));
        std::fs::write(&path, png(ColorType::Rgb, BitDepth::Eight, (1, 1), &[1, 2, 3])).unwrap();
        assert_eq!(panoptic_ids(&path, 99).unwrap().values, [1 + 2 * 256 + 3 * 65536]);
        assert!(values(&path, &Colours::new(), 99).unwrap_err().to_string().contains("coloured ([1, 2, 3])"));
        let known = Colours::from([([1, 2, 3], 4)]);
        assert_eq!(values(&path, &known, 99).unwrap().values, [4]);
        assert_eq!(size(&path).unwrap(), (1, 1));
        std::fs::write(&path, png(ColorType::Rgb, BitDepth::Eight, (2, 1), &[7, 7, 7, 255, 255, 255])).unwrap();
        assert_eq!(values(&path, &Colours::new(), 99).unwrap().values, [7, 255], "grey as RGB");
        assert!(values(&path, &known, 99).unwrap_err().to_string().contains("[7, 7, 7]"));
        std::fs::remove_file(&path).unwrap();
    }
}
