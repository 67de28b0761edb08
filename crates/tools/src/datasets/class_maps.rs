//! Folders of class maps: PNGs whose values are classes (VOC, ADE20K, Cityscapes, mmsegmentation, labelme2voc, CVAT's masks).
//!
//! A picture's map has its name, or one of the endings by which datasets call them ([`ENDINGS`]), or what `--suffixes` says.
//! Names of classes come from `--class-names`, else from `labelmap.txt` (CVAT, datumaro; with colours) or `class_names.txt`
//! (labelme2voc) beside the maps, else Cityscapes' own for maps called `_labelIds` or `_labelTrainIds`.
//! Refuses: colours without a list of them, JPEG maps, values that are no class.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_core::model::label_sets::{ADE20K, CITYSCAPES};
use eomt_edge_host::files;
use eomt_edge_host::output::usage;

use super::find::{pictures, some_of};
use super::maps::Colours;
use super::{ClassValues, Image, Record};

/// Ends of pictures and of their maps: Cityscapes, ACDC and Dark Zurich, COCO-Stuff in mmsegmentation, Roboflow.
const ENDINGS: [(&str, &str); 9] = [
    ("_leftImg8bit", "_gtFine_labelTrainIds"),
    ("_leftImg8bit", "_gtFine_labelIds"),
    ("_leftImg8bit", "_gtCoarse_labelTrainIds"),
    ("_leftImg8bit", "_gtCoarse_labelIds"),
    ("_rgb_anon", "_gt_labelTrainIds"),
    ("_rgb_anon", "_gt_labelIds"),
    ("", "_labelTrainIds"),
    ("", "_mask"),
    ("", "_gt"),
];

/// Cityscapes' ids of the classes that count, in the order of their train ids.
const CITYSCAPES_IDS: [u16; 19] = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];

/// PASCAL VOC's classes, by the index of their colour.
#[rustfmt::skip]
const VOC: [&str; 21] = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
];

/// The colours of classes that are VOC's, for maps that are stored as RGB.
pub fn colours_of(names: &[String]) -> Colours {
    if names != VOC {
        return HashMap::new();
    }
    (0..VOC.len()).map(|class| (voc_colour(class), class as u16)).collect()
}

/// What the files say of the classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    pub names: Vec<String>,
    pub values: ClassValues,
    /// Class of a colour, where the maps are coloured.
    pub colours: Colours,
    /// Whether the names are Cityscapes', by the names of the files.
    pub assumed: bool,
}

/// Whose values the maps' names say they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    LabelIds,
    TrainIds,
}

fn kind(png: &Path) -> Kind {
    let stem = png.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let cityscapes = ["_gtFine_", "_gtCoarse_", "_gt_"].iter().any(|part| stem.contains(part));
    match stem {
        stem if cityscapes && stem.ends_with("_labelIds") => Kind::LabelIds,
        stem if cityscapes && stem.ends_with("_labelTrainIds") => Kind::TrainIds,
        _ => Kind::Plain,
    }
}

/// What is known of the classes besides the model; `None` when the files say nothing.
pub fn naming(directory: &Path, images: &[Image], values: &ClassValues) -> Result<Option<Naming>> {
    let kinds: Vec<Kind> = images.iter().filter_map(|image| image.map()).map(kind).collect();
    if let (Some(one), Some(other)) = (images.first(), kinds.iter().position(|kind| *kind != kinds[0])) {
        let [one, other] = [one, &images[other]].map(|image| image.map().unwrap_or(&image.path).display());
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

/// `--class-names`: names with commas between, or a file with a name a line; `ade20k`, `cityscapes` and `voc` are known.
pub fn names_of(text: &str) -> Result<Vec<String>> {
    let names: Vec<String> = match text {
        "cityscapes" => CITYSCAPES.map(str::to_owned).to_vec(),
        "ade20k" => ADE20K.map(str::to_owned).to_vec(),
        "voc" => VOC.map(str::to_owned).to_vec(),
        text if Path::new(text).is_file() => return name_list(Path::new(text)),
        text => text.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    if names.iter().any(String::is_empty) || (names.len() == 1 && text.contains(['/', '.'])) {
        return usage(format!("--class-names {text}: this is no file and no list of names with commas between"));
    }
    Ok(names)
}

/// A name a line; labelme2voc's `__ignore__` (255) stands first and is no class.
fn name_list(path: &Path) -> Result<Vec<String>> {
    let text = String::from_utf8(files::read(path)?).with_context(|| format!("{}: this is not UTF-8", path.display()))?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let names: Vec<String> = lines.filter(|line| !line.is_empty() && *line != "__ignore__").map(str::to_owned).collect();
    if names.is_empty() {
        bail!("{}: there is no name of a class", path.display());
    }
    Ok(names)
}

/// Names and colours of `label:color_rgb:parts:actions` lines; a class without a colour has VOC's.
fn labelmap(path: &Path) -> Result<(Vec<String>, Colours)> {
    let text = String::from_utf8(files::read(path)?).with_context(|| format!("{}: this is not UTF-8", path.display()))?;
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

/// The pictures below `root` (else the maps themselves) with their maps in `directory`. Pictures without one are skipped by name.
pub fn paired(directory: &Path, root: &Path, suffixes: Option<&[String; 2]>, record: impl Fn(PathBuf) -> Record) -> Result<Vec<Image>> {
    let from = if root.as_os_str().is_empty() { directory } else { root };
    let mut found = pictures(from)?;
    if from == directory {
        only_labels(&mut found);
    }
    let (mut images, mut without): (Vec<Image>, Vec<String>) = (Vec::with_capacity(found.len()), Vec::new());
    let mut owners: HashMap<PathBuf, String> = HashMap::new();
    for path in found {
        let below = path.strip_prefix(from).unwrap_or(&path);
        let name = below.to_string_lossy().into_owned();
        let Some(png) = candidates(below, suffixes).into_iter().map(|map| directory.join(map)).find(|png| png.is_file()) else {
            without.push(name);
            continue;
        };
        if png == path && from == root {
            continue; // pictures and maps in one folder: this is a map
        }
        if let Some(other) = owners.insert(png.clone(), name.clone()) {
            bail!("{other} and {name} have the same map, {}", png.display());
        }
        images.push(Image { id: name.clone(), name, path, record: record(png) });
    }
    match &without[..] {
        [] => {}
        [first, ..] if images.is_empty() => {
            let stem = Path::new(first).with_extension("");
            let lossy = ["jpg", "jpeg"].iter().any(|end| directory.join(stem.with_extension(end)).is_file());
            let hint = if lossy { " (a JPEG is there, which does not keep values)" } else { "" };
            let (directory, stem, count) = (directory.display(), stem.display(), without.len());
            bail!(
                "{first}: {directory} has no {stem}.png{hint}, nor a map of another of the {count} pictures; --suffixes says how they are called"
            );
        }
        names => log::warn!("{}: {} pictures have no map and are skipped: {}", directory.display(), names.len(), some_of(names)),
    }
    Ok(images)
}

/// Of the PNGs that Cityscapes has of a picture, one: colours and instances are no class maps.
fn only_labels(found: &mut Vec<PathBuf>) {
    let part_of_cityscapes = |path: &Path| ["_gtFine_", "_gtCoarse_"].iter().any(|part| path.to_string_lossy().contains(part));
    let train_ids = found.iter().any(|path| kind(path) == Kind::TrainIds);
    let wanted = if train_ids { Kind::TrainIds } else { Kind::LabelIds };
    found.retain(|path| !part_of_cityscapes(path) || kind(path) == wanted);
}

/// What the map of a picture may be called, below the folder of maps.
fn candidates(below: &Path, suffixes: Option<&[String; 2]>) -> Vec<String> {
    if let Some([picture, map]) = suffixes {
        let name = below.to_string_lossy();
        return name.strip_suffix(picture.as_str()).map(|stem| format!("{stem}{map}")).into_iter().collect();
    }
    let stem = below.with_extension("").to_string_lossy().into_owned();
    let renamed = ENDINGS.iter().filter_map(|(picture, map)| Some(format!("{}{map}", stem.strip_suffix(picture)?)));
    std::iter::once(stem.clone()).chain(renamed).flat_map(|stem| ["png", "PNG"].map(|end| format!("{stem}.{end}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_vocs() {
        assert_eq!([0, 1, 2, 8, 20, 255].map(voc_colour), [[0, 0, 0], [128, 0, 0], [0, 128, 0], [64, 0, 0], [0, 64, 128], [224, 224, 192]]);
    }

    #[test]
    fn maps_are_called_as_datasets_call_them() {
        let of = |name: &str| candidates(Path::new(name), None);
        assert!(of("a/b.c d.jpg").contains(&"a/b.c d.png".to_owned()));
        assert!(of("x/y_leftImg8bit.png").contains(&"x/y_gtFine_labelIds.png".to_owned()));
        assert!(of("000000000009.jpg").contains(&"000000000009_labelTrainIds.png".to_owned()));
        let suffixes = ["_sat.jpg".to_owned(), "_mask.png".to_owned()];
        assert_eq!(candidates(Path::new("1_sat.jpg"), Some(&suffixes)), ["1_mask.png"]);
        assert!(candidates(Path::new("1.jpg"), Some(&suffixes)).is_empty());
    }
}
