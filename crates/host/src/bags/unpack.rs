//! The pictures of a bag as files, for what looks for pictures in a directory.
//!
//! A picture is called by its stamp in nanoseconds, `1700000000000000001.png`; where stamps are missing or not unique, all are called by
//! their place in the topic, `frame000000.png`.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use eomt_edge_core::data::PixelFormat;

use super::{BagName, BagPicture, BagPictureError, BagPictures};
use crate::bounds::PICTURES_MAX;
use crate::files::{self, TemporaryDirectory};

/// Pictures of a bag, as files in a temporary directory that goes with this.
pub struct UnpackedBag {
    directory: TemporaryDirectory,
    /// In the order in which they were recorded.
    pub names: Vec<String>,
}

impl UnpackedBag {
    /// Where they are.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Writes those pictures of a bag that are `wanted`, by their place among all: JPEG pictures as they are, others as PNG. A warning tells what
/// could not be read.
///
/// # Errors
/// When there is no such bag, no picture in it can be read, or there is no room for them.
pub fn unpack(name: &BagName, max_pixels: u64, wanted: impl Fn(u64) -> bool) -> Result<UnpackedBag> {
    let pictures = BagPictures::open(name, max_pixels)?;
    let directory = TemporaryDirectory::create()?;
    let mut stamps = Vec::new();
    let mut failed: Vec<BagPictureError> = Vec::new();
    for picture in pictures {
        match picture {
            Ok(picture) if wanted(picture.number) => {
                if stamps.len() >= PICTURES_MAX {
                    bail!("{name}: there are more than {PICTURES_MAX} pictures in it");
                }
                stamps.push((picture.stamp_ns, picture.number));
                let path = directory.path().join(by_number(picture.number));
                // not as output is written: nobody needs these files once this process has ended
                std::fs::write(&path, bytes(picture)?).with_context(|| format!("{}: cannot be written", path.display()))?;
            }
            Ok(_) => {}
            Err(error) => failed.push(error),
        }
    }
    match (&failed[..], stamps.is_empty()) {
        ([], false) => {}
        ([], true) => bail!("{name}: there is no picture in it"),
        ([first, ..], true) => bail!("{name}: no picture can be read; the first one: {first}"),
        ([first, ..], false) => log::warn!("{name}: {} pictures, or a part of the bag, cannot be read; the first: {first}", failed.len()),
    }
    let unique: HashSet<u64> = stamps.iter().map(|(stamp, _)| *stamp).collect();
    let by_stamp = unique.len() == stamps.len() && !unique.contains(&0);
    let mut names = Vec::with_capacity(stamps.len());
    for (stamp, number) in stamps {
        let (old, new) = (by_number(number), if by_stamp { format!("{stamp:019}.png") } else { by_number(number) });
        std::fs::rename(directory.path().join(old), directory.path().join(&new))?;
        names.push(new);
    }
    Ok(UnpackedBag { directory, names })
}

fn by_number(number: u64) -> String {
    format!("frame{number:06}.png")
}

fn bytes(picture: BagPicture) -> Result<Vec<u8>> {
    if picture.frame.format == PixelFormat::Mjpg {
        return Ok(picture.frame.data);
    }
    let frame = picture.into_rgb().map_err(anyhow::Error::msg)?;
    files::png_rgb(&frame.data, frame.width, frame.height)
}
