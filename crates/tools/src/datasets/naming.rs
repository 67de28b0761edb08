//! What the values of class maps mean: classes, their names, and the colours of coloured maps.
//!
//! Names come from `--class-names`, else from `labelmap.txt` (CVAT, datumaro; with colours) or `class_names.txt` (labelme2voc) beside the
//! maps, else from Cityscapes for maps called `_labelIds` or `_labelTrainIds`.
//! Refuses: to guess what a colour means.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::model::label_sets::{ADE20K, CITYSCAPES};
use eomt_edge_host::output::usage;
use eomt_edge_host::{bounds, files};

use super::labels::NO_CLASS;
use super::maps::Colours;
use super::pairs::{Kind, kind};

/// What the values of a class map mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassValues {
    /// Pixels of these values do not count.
    pub ignore: Vec<u16>,
    /// The value of class 0; class 1 has the next.
    pub offset: u16,
    /// The value of each class, in their order, instead of `offset`; pixels of other values do not count.
    pub listed: Option<Vec<u16>>,
}

impl ClassValues {
    /// The class of a value: [`NO_CLASS`] when it does not count, `None` when no class of `classes` has it.
    pub(super) fn class(&self, value: u16, classes: usize) -> Option<u16> {
        if self.ignore.contains(&value) {
            return Some(NO_CLASS);
        }
        if let Some(listed) = &self.listed {
            return Some(listed.iter().position(|known| *known == value).map_or(NO_CLASS, |class| class as u16));
        }
        value.checked_sub(self.offset).filter(|class| usize::from(*class) < classes)
    }
}

/// Cityscapes' ids of the classes that count, in the order of their train ids.
const CITYSCAPES_IDS: [u16; 19] = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];

/// PASCAL VOC's classes, by the index of their colour.
#[rustfmt::skip]
const VOC: [&str; 21] = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
];

/// VOC's colours, when `names` are VOC's classes: for maps that are stored as RGB.
pub(super) fn colours_of(names: &[String]) -> Colours {
    if names != VOC {
        return HashMap::new();
    }
    (0..VOC.len()).map(|class| (voc_colour(class), class as u16)).collect()
}

/// What the files say about the classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Naming {
    /// In the order of the classes.
    pub names: Vec<String>,
    pub values: ClassValues,
    /// The class of a colour, where the maps are coloured.
    pub colours: Colours,
    /// Whether the names are Cityscapes' because of the names of the files.
    pub assumed: bool,
}

/// What files beside the maps, or the names of the maps, say about the classes; `None` when they say nothing.
///
/// # Errors
/// When the maps are of two kinds, or a list of names is broken.
pub(super) fn naming(directory: &Path, maps: &[PathBuf], values: &ClassValues) -> Result<Option<Naming>> {
    let kinds: Vec<Kind> = maps.iter().map(|map| kind(map)).collect();
    if let Some(other) = kinds.iter().position(|kind| *kind != kinds[0]) {
        let [one, other] = [&maps[0], &maps[other]].map(|map| map.display());
        bail!("{one} and {other} are maps of two kinds, whose values mean different things");
    }
    let own = Naming { names: Vec::new(), values: values.clone(), colours: HashMap::new(), assumed: false };
    for folder in [Some(directory), directory.parent()].into_iter().flatten() {
        let (labelmap, names) = (folder.join("labelmap.txt"), folder.join("class_names.txt"));
        if labelmap.is_file() {
            let (names, colours) = self::labelmap(&labelmap)?;
            return Ok(Some(Naming { names, colours, ..own }));
        }
        if names.is_file() {
            return Ok(Some(Naming { names: name_list(&names)?, ..own }));
        }
    }
    let untouched = values.offset == 0 && values.listed.is_none();
    let cityscapes = |values| Naming { names: CITYSCAPES.map(str::to_owned).to_vec(), values, assumed: true, ..own.clone() };
    Ok(match kinds.first() {
        Some(Kind::LabelIds) if untouched => Some(cityscapes(ClassValues { listed: Some(CITYSCAPES_IDS.to_vec()), ..values.clone() })),
        Some(Kind::TrainIds) if untouched => Some(cityscapes(values.clone())),
        _ => None,
    })
}

/// Reads `--class-names`: names separated by commas, a file with one name per line, or `ade20k`, `cityscapes`, `voc`.
///
/// # Errors
/// A usage error when a name is empty; an error of the file when it cannot be read or holds no name.
pub fn names_of(text: &str) -> Result<Vec<String>> {
    let names: Vec<String> = match text {
        "cityscapes" => CITYSCAPES.map(str::to_owned).to_vec(),
        "ade20k" => ADE20K.map(str::to_owned).to_vec(),
        "voc" => VOC.map(str::to_owned).to_vec(),
        text if Path::new(text).is_file() => return name_list(Path::new(text)),
        text => text.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    if names.iter().any(String::is_empty) || (names.len() == 1 && text.contains(['/', '.'])) {
        return usage(format!("--class-names {text}: this is neither a file nor a list of names with commas between"));
    }
    Ok(names)
}

/// One name per line. labelme2voc's `__ignore__` (255) comes first and is no class.
fn name_list(path: &Path) -> Result<Vec<String>> {
    let text = String::from_utf8(files::read(path, &bounds::TEXT)?).with_context(|| format!("{}: this is not UTF-8", path.display()))?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let names: Vec<String> = lines.filter(|line| !line.is_empty() && *line != "__ignore__").map(str::to_owned).collect();
    if names.is_empty() {
        bail!("{}: there is no name of a class", path.display());
    }
    Ok(names)
}

/// Names and colours of `label:color_rgb:parts:actions` lines; a class without a colour has VOC's.
fn labelmap(path: &Path) -> Result<(Vec<String>, Colours)> {
    let text = String::from_utf8(files::read(path, &bounds::TEXT)?).with_context(|| format!("{}: this is not UTF-8", path.display()))?;
    let (mut names, mut colours) = (Vec::new(), HashMap::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut fields = line.split(':');
        let (name, colour) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let wrong = || format!("{}: {line:?} is not NAME:RED,GREEN,BLUE:..", path.display());
        let colour = match colour.trim() {
            "" => voc_colour(names.len()),
            text => {
                let levels: Option<Vec<u8>> = text.split(',').map(|level| level.trim().parse().ok()).collect();
                levels.and_then(|levels| <[u8; 3]>::try_from(levels).ok()).with_context(wrong)?
            }
        };
        if colours.insert(colour, names.len() as u16).is_some() {
            bail!("{}: two classes have the colour {colour:?}", path.display());
        }
        names.push(name.to_owned());
    }
    if names.is_empty() {
        bail!("{}: there is no name of a class", path.display());
    }
    Ok((names, colours))
}

/// The colour of an index in the palette of PASCAL VOC's development kit: bits of the index, three at a time, from the top of each
/// channel down.
fn voc_colour(index: usize) -> [u8; 3] {
    let level = |channel: usize| (0..8).map(|bit| ((index >> (3 * bit + channel) & 1) as u8) << (7 - bit)).sum();
    [level(0), level(1), level(2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_vocs() {
        assert_eq!([0, 1, 2, 8, 20, 255].map(voc_colour), [[0, 0, 0], [128, 0, 0], [0, 128, 0], [64, 0, 0], [0, 64, 128], [224, 224, 192]]);
    }
}
