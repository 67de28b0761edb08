//! YOLO segmentation: `data.yaml` and a text file of polygons for each picture (Ultralytics' layout, as Roboflow, CVAT, Label Studio
//! and datumaro export it).
//!
//! ```text
//! data.yaml            path: . ; train: images/train ; val: images/val ; names: [cat, dog]
//! images/val/a.jpg     labels/val/a.txt: one object per line, CLASS x1 y1 x2 y2 x3 y3 .., fractions of width and height
//! ```
//! Every class is a thing. A picture without a text file has no objects, as for Ultralytics. Refuses: boxes, poses,
//! coordinates in pixels, classes that the list does not have.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eomt_edge_host::output::usage;
use eomt_edge_host::pictures::size as picture_size;
use eomt_edge_host::{bounds, files};
use hotcoco::Segmentation;
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::{Yaml, YamlLoader};

use super::find::{self, some_of};
use super::fingerprint;
use super::format::{Format, GroundTruth, Image, Opening};
use super::labels::Class;
use super::naming::ClassValues;
use super::objects::{Object, ObjectGroundTruth, ObjectLists};

/// A YOLO segmentation dataset.
#[derive(Debug, Clone)]
pub struct Yolo {
    /// A `data.yaml`, the folder that holds it, or a folder of images, labels and `classes.txt` as Label Studio writes it.
    pub place: PathBuf,
    /// The set to read, a key of the `data.yaml`: train, val, test.
    pub split: String,
}

impl Format for Yolo {
    fn open(&self, opening: &Opening) -> Result<Box<dyn GroundTruth>> {
        let Yolo { place, split } = self;
        let inside = place.join("data.yaml");
        let (classes, mut pictures) = match place {
            folder if folder.is_dir() && !inside.is_file() => flat(folder)?,
            folder if folder.is_dir() => described(&inside, split)?,
            yaml => described(yaml, split)?,
        };
        pictures.sort();
        pictures.dedup();
        let (mut tally, mut objects) = (Tally::default(), ObjectLists::default());
        let mut images = Vec::with_capacity(pictures.len());
        for path in pictures {
            let size = picture_size(&path, opening.exif)?.shown;
            objects.push(size, tally.read(&path, size, classes.len())?);
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            images.push(Image { id: path.to_string_lossy().into_owned(), name, path });
        }
        full_names_where_needed(&mut images);
        tally.check(place, split)?;
        Ok(Box::new(ObjectGroundTruth {
            source: place.clone(),
            classes,
            images,
            objects,
            max_pixels: opening.max_pixels,
            fingerprint: Box::new(|opened| {
                let contents = |image: usize| {
                    let (size, list) = opened.objects.get(image);
                    format!("{size:?} {list:?}")
                };
                Ok(fingerprint::of_images(&ClassValues::default(), opened, contents))
            }),
        }))
    }

    fn locates_pictures(&self) -> bool {
        true
    }
}

/// Classes and pictures of a `data.yaml`.
fn described(yaml: &Path, split: &str) -> Result<(Vec<Class>, Vec<PathBuf>)> {
    let file = yaml.display();
    let text = String::from_utf8(files::read(yaml, &bounds::TEXT)?).with_context(|| format!("{file}: this is not UTF-8"))?;
    let text = text.trim_start_matches('\u{feff}');
    check_yaml(text).with_context(|| format!("{file}"))?;
    let documents = YamlLoader::load_from_str(text).with_context(|| format!("{file}: this is not YAML"))?;
    let document = documents.into_iter().next().unwrap_or(Yaml::Null);
    if !document["kpt_shape"].is_badvalue() {
        bail!("{file}: kpt_shape says that these are poses, which have no masks");
    }
    let names = names(&document).with_context(|| format!("{file}"))?;
    Ok((classes(yaml, names)?, pictures(yaml, &document, split)?))
}

/// Refuses what would grow in memory or on the stack: aliases, which repeat a part of the file any number of times, and deep nesting. What is
/// no YAML is left to the loader.
fn check_yaml(text: &str) -> Result<()> {
    let (mut parser, mut depth) = (Parser::new_from_str(text), 0usize);
    loop {
        match parser.next_token() {
            Err(_) | Ok((Event::StreamEnd, _)) => return Ok(()),
            Ok((Event::Alias(_), at)) => bail!("line {}: aliases (*NAME) are not read: write the value out", at.line()),
            Ok((Event::SequenceStart(..) | Event::MappingStart(..), at)) => {
                depth += 1;
                if depth > bounds::YAML_DEPTH_MAX {
                    bail!("line {}: more than {} levels lie inside each other", at.line(), bounds::YAML_DEPTH_MAX);
                }
            }
            Ok((Event::SequenceEnd | Event::MappingEnd, _)) => depth = depth.saturating_sub(1),
            Ok(_) => {}
        }
    }
}

/// Classes and pictures of a folder without a `data.yaml`.
fn flat(folder: &Path) -> Result<(Vec<Class>, Vec<PathBuf>)> {
    let list = folder.join("classes.txt");
    if !list.is_file() {
        bail!("{}: there is neither a data.yaml nor a classes.txt", folder.display());
    }
    let text = String::from_utf8(files::read(&list, &bounds::TEXT)?).with_context(|| format!("{}: this is not UTF-8", list.display()))?;
    let names = text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let found = find::pictures(&folder.join("images"))?;
    if found.is_empty() {
        bail!("{}: there are no PNG or JPEG pictures", folder.join("images").display());
    }
    Ok((classes(&list, names)?, found))
}

fn classes(file: &Path, names: Vec<String>) -> Result<Vec<Class>> {
    if names.is_empty() || names.len() >= usize::from(u16::MAX) {
        bail!("{}: {} names cannot be classes", file.display(), names.len());
    }
    Ok(names.into_iter().zip(0..).map(|(name, id)| Class { id, name, is_thing: Some(true) }).collect())
}

/// Adds the folder to the names of pictures that have the same name.
fn full_names_where_needed(images: &mut [Image]) {
    let mut seen = std::collections::HashMap::new();
    images.iter().for_each(|image| *seen.entry(image.name.clone()).or_insert(0) += 1);
    for image in images.iter_mut().filter(|image| seen[&image.name] > 1) {
        image.name = image.path.to_string_lossy().into_owned();
    }
}

/// `names: [a, b]` or `names: {0: a, 1: b}`.
fn names(document: &Yaml) -> Result<Vec<String>> {
    let text = |name: &Yaml| match name {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(value) => Some(value.to_string()), // a class called yes or true
        _ => None,
    };
    let names: Option<Vec<String>> = match &document["names"] {
        Yaml::Array(names) => names.iter().map(text).collect(),
        Yaml::Hash(names) => {
            let name = |number: usize| names.get(&Yaml::Integer(number as i64)).or_else(|| names.get(&Yaml::String(number.to_string())));
            (0..names.len()).map(|number| name(number).and_then(text)).collect()
        }
        _ => bail!("there is no list of names"),
    };
    let names = names.context("names is not a list of texts, nor numbered from 0 without gaps")?;
    if let Some(count) = document["nc"].as_i64().filter(|count| *count != names.len() as i64) {
        bail!("nc is {count}, and there are {} names", names.len());
    }
    Ok(names)
}

/// The pictures of a split: folders, or lists in text files.
fn pictures(yaml: &Path, document: &Yaml, split: &str) -> Result<Vec<PathBuf>> {
    let file = yaml.display();
    let places: Vec<&str> = match &document[split] {
        Yaml::String(place) => vec![place],
        Yaml::Array(places) => places.iter().filter_map(Yaml::as_str).collect(),
        _ => Vec::new(),
    };
    if places.is_empty() {
        let known: Vec<&str> = ["train", "val", "test"].into_iter().filter(|key| !document[*key].is_badvalue()).collect();
        return usage(format!("{file}: there is no {split}, but {}: --split says which is meant", known.join(", ")));
    }
    let here = yaml.parent().unwrap_or(Path::new(""));
    let below = document["path"].as_str().map(|path| here.join(path)).filter(|path| path.is_dir());
    let mut found = Vec::new();
    for place in places {
        // Roboflow writes `../train/images` for `train/images`
        let plain = place.trim_start_matches("./").trim_start_matches("../");
        let roots = [below.as_deref(), Some(here)];
        let places = roots.iter().flatten().flat_map(|root| [root.join(place), root.join(plain)]);
        let place = places.into_iter().find(|place| place.exists()).with_context(|| {
            format!("{file}: {split} is {place}, and {} does not exist", below.as_deref().unwrap_or(here).join(place).display())
        })?;
        let before = found.len();
        if place.is_dir() {
            found.extend(find::pictures(&place)?);
        } else {
            listed(&place, &mut found)?;
        }
        if found.len() == before {
            bail!("{}: there are no PNG or JPEG pictures", place.display());
        }
    }
    Ok(found)
}

/// The pictures that a text file names, one per line, relative to its own folder.
fn listed(list: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let text = String::from_utf8_lossy(&files::read(list, &bounds::TEXT)?).into_owned();
    let here = list.parent().unwrap_or(Path::new(""));
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let places = [here.join(line), PathBuf::from(line)];
        let picture = places.iter().find(|place| place.is_file());
        found.push(picture.with_context(|| format!("{}: {line} does not exist", list.display()))?.clone());
    }
    Ok(())
}

/// The text file of a picture: the last folder `images` becomes `labels`, the extension `txt`.
fn label_file(picture: &Path) -> PathBuf {
    let parts: Vec<_> = picture.components().collect();
    let last = parts.iter().rposition(|part| part.as_os_str() == "images").filter(|at| *at + 1 < parts.len());
    let renamed = parts.iter().enumerate().map(|(at, part)| if Some(at) == last { "labels".as_ref() } else { part.as_os_str() });
    renamed.collect::<PathBuf>().with_extension("txt")
}

/// Counts of objects, for warnings and refusals.
#[derive(Default)]
struct Tally {
    objects: usize,
    boxes: usize,
    four: usize,
    with_boxes: Vec<String>,
    /// Text files that exist.
    files: usize,
    /// Where the first text file would have been.
    first: PathBuf,
}

impl Tally {
    fn read(&mut self, picture: &Path, size: (u32, u32), classes: usize) -> Result<Vec<Object>> {
        let path = label_file(picture);
        if self.first.as_os_str().is_empty() {
            self.first.clone_from(&path);
        }
        if !path.exists() {
            return Ok(Vec::new());
        }
        self.files += 1;
        let text =
            String::from_utf8(files::read(&path, &bounds::TEXT)?).with_context(|| format!("{}: this is not UTF-8", path.display()))?;
        let mut list = Vec::new();
        for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()).filter(|(_, line)| !line.trim().is_empty()) {
            match object(line, size, classes).with_context(|| format!("{}, line {number}", path.display()))? {
                Some(object) => {
                    self.objects += 1;
                    self.four += usize::from(object.shape.polygons().is_some_and(|polygons| polygons[0].len() == 8));
                    list.push(object);
                }
                None => {
                    self.boxes += 1;
                    let name = path.display().to_string();
                    if self.with_boxes.last() != Some(&name) {
                        self.with_boxes.push(name);
                    }
                }
            }
        }
        Ok(list)
    }

    /// Refuses a set without a usable object; warns about those that are left out.
    fn check(&self, yaml: &Path, split: &str) -> Result<()> {
        let file = yaml.display();
        if self.objects == 0 && self.boxes > 0 {
            bail!("{file}: all {} objects of {split} are boxes, without a mask: export polygons", self.boxes);
        }
        if self.files == 0 {
            bail!("{file}: no picture of {split} has a text file with its objects, as {} would be", self.first.display());
        }
        if self.objects == 0 {
            bail!("{file}: no picture of {split} has an object");
        }
        if self.boxes > 0 {
            log::warn!("{file}: {} boxes have no mask and are left out, in {}", self.boxes, some_of(&self.with_boxes));
        }
        if self.four == self.objects {
            log::warn!("{file}: every object of {split} has four corners: are these oriented boxes rather than masks?");
        }
        Ok(())
    }
}

/// How far a coordinate may lie outside of the picture, relative to its size: annotators round.
const OUTSIDE: f64 = 0.01;

/// The object of a line; `None` for a box.
fn object(line: &str, (width, height): (u32, u32), classes: usize) -> Result<Option<Object>> {
    let number = |word: &str| word.parse::<f64>().ok().filter(|number| number.is_finite()).with_context(|| format!("{word} is no number"));
    let numbers: Vec<f64> = line.split_whitespace().map(number).collect::<Result<_>>()?;
    let (class, corners) = (numbers[0], &numbers[1..]);
    if class < 0.0 || class.fract() != 0.0 || class >= classes as f64 {
        bail!("the class {class} is none of the {classes} names");
    }
    if corners.len() == 4 {
        return Ok(None);
    }
    if corners.len() < 6 || corners.len() % 2 == 1 {
        bail!("{} numbers after the class are no polygon: x and y of at least three corners", corners.len());
    }
    if let Some(far) = corners.iter().find(|corner| !(-OUTSIDE..=1.0 + OUTSIDE).contains(*corner)) {
        bail!("the coordinate {far} is not a part of the picture's size, 0 to 1");
    }
    let size = [f64::from(width), f64::from(height)];
    let polygon = corners.iter().enumerate().map(|(at, corner)| corner.clamp(0.0, 1.0) * size[at % 2]).collect();
    Ok(Some(Object { class: class as usize, shape: Segmentation::Polygon(vec![polygon]), area: None, crowd: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_polygons_boxes_or_wrong() {
        let read = |line: &str| object(line, (100, 50), 2).map(|object| object.map(|object| object.shape.polygons().unwrap()[0].clone()));
        assert_eq!(read("1 0 0 0.5 0 0.5 1.005").unwrap().unwrap(), [0.0, 0.0, 50.0, 0.0, 50.0, 50.0]);
        assert_eq!(read("0 0.5 0.5 0.2 0.2").unwrap(), None);
        for (line, word) in [
            ("2 0 0 1 0 1 1", "class 2"),
            ("-1 0 0 1 0 1 1", "class -1"),
            ("0.5 0 0 1 0 1 1", "0.5"),
            ("0 0 0 1 0", ""),
            ("0 0 0 1 0 1", "5 numbers"),
            ("0 0 0 1 0 1 1 0", "7 numbers"),
            ("0 0 0 320 0 320 240", "320"),
            ("cat 0 0 1 0 1 1", "cat"),
            ("0 nan 0 1 0 1 1", "nan"),
        ] {
            if word.is_empty() {
                assert_eq!(read(line).unwrap(), None);
            } else {
                assert!(read(line).unwrap_err().to_string().contains(word), "{line}");
            }
        }
    }

    #[test]
    fn yaml_that_grows_is_refused() {
        assert!(check_yaml("path: .\nnames: {0: a, 1: [b]}\n").is_ok());
        let message = |text: &str| check_yaml(text).unwrap_err().to_string();
        assert!(message("a: &a [x]\nb: [*a, *a]\n").contains("line 2: aliases"));
        assert!(message(&format!("names: {}{}", "[".repeat(100), "]".repeat(100))).contains("levels"));
        // deeper ones are no YAML for the loader either
        assert!(YamlLoader::load_from_str(&format!("names: {}", "[".repeat(100_000))).is_err());
        assert!(message(&(0..40).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>()).contains("levels"));
    }

    #[test]
    fn text_files_lie_where_ultralytics_looks() {
        assert_eq!(label_file(Path::new("a/images/images/b.c.jpg")), Path::new("a/images/labels/b.c.txt"));
        assert_eq!(label_file(Path::new("images/val/b.jpg")), Path::new("labels/val/b.txt"));
        assert_eq!(label_file(Path::new("x/b.jpg")), Path::new("x/b.txt"));
    }
}
