//! Pictures and their maps, paired by their names: PNGs of class values, or anomaly masks.
//!
//! A picture's map has its name, or one of the endings by which datasets call them ([`ENDINGS`]), or what `--suffixes` says.
//! Refuses: two pictures with one map, JPEG maps.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::find::{pictures, some_of};
use super::format::Image;

/// Endings of pictures and of their maps: Cityscapes, ACDC and Dark Zurich, COCO-Stuff in mmsegmentation, Roboflow.
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

/// What the values of a map are, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Classes.
    Plain,
    /// Cityscapes' ids of labels.
    LabelIds,
    /// Cityscapes' ids of the classes that count.
    TrainIds,
}

/// The kind of a map by its name.
pub(super) fn kind(png: &Path) -> Kind {
    let stem = png.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let cityscapes = ["_gtFine_", "_gtCoarse_", "_gt_"].iter().any(|part| stem.contains(part));
    match stem {
        stem if cityscapes && stem.ends_with("_labelIds") => Kind::LabelIds,
        stem if cityscapes && stem.ends_with("_labelTrainIds") => Kind::TrainIds,
        _ => Kind::Plain,
    }
}

/// The pictures below `root` (below `directory` when it is empty) and the map of each in `directory`. Names the pictures without one in a
/// warning and skips them.
///
/// # Errors
/// When no picture has a map, two have the same, or a folder cannot be read.
pub(super) fn paired(directory: &Path, root: &Path, suffixes: Option<&[String; 2]>) -> Result<(Vec<Image>, Vec<PathBuf>)> {
    let from = if root.as_os_str().is_empty() { directory } else { root };
    let mut found = pictures(from)?;
    if from == directory {
        only_labels(&mut found);
    }
    let (mut images, mut maps, mut without): (Vec<Image>, Vec<PathBuf>, Vec<String>) = (Vec::new(), Vec::new(), Vec::new());
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
        images.push(Image { id: name.clone(), name, path });
        maps.push(png);
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
    Ok((images, maps))
}

/// Keeps one of the PNGs that Cityscapes has for a picture: colours and instances are no class maps.
fn only_labels(found: &mut Vec<PathBuf>) {
    let part_of_cityscapes = |path: &Path| ["_gtFine_", "_gtCoarse_"].iter().any(|part| path.to_string_lossy().contains(part));
    let train_ids = found.iter().any(|path| kind(path) == Kind::TrainIds);
    let wanted = if train_ids { Kind::TrainIds } else { Kind::LabelIds };
    found.retain(|path| !part_of_cityscapes(path) || kind(path) == wanted);
}

/// The names that the map of a picture may have, below the folder of maps.
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
    fn maps_have_the_names_that_datasets_give_them() {
        let of = |name: &str| candidates(Path::new(name), None);
        assert!(of("a/b.c d.jpg").contains(&"a/b.c d.png".to_owned()));
        assert!(of("x/y_leftImg8bit.png").contains(&"x/y_gtFine_labelIds.png".to_owned()));
        assert!(of("000000000009.jpg").contains(&"000000000009_labelTrainIds.png".to_owned()));
        let suffixes = ["_sat.jpg".to_owned(), "_mask.png".to_owned()];
        assert_eq!(candidates(Path::new("1_sat.jpg"), Some(&suffixes)), ["1_mask.png"]);
        assert!(candidates(Path::new("1.jpg"), Some(&suffixes)).is_empty());
    }
}
