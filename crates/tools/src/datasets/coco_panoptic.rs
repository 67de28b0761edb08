//! COCO panoptic, as COCO, cityscapesScripts, datumaro and this program write it.
//!
//! Areas are counted from the PNG's pixels; what the JSON says of them is only compared. `isthing` 0 for every category, which
//! datumaro 1.13 writes whatever the classes are, is told apart from a set of stuff by pictures that show two segments of one class.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::coco::{self, Id, ImageJson};
use super::find::{Finder, some_of};
use super::labels::{Class, PanopticMap, PanopticSegment};
use super::{Image, Once, Record, maps};

/// Classes and images of `--panoptic-json`.
pub fn open(json: &Path, directory: &Path, root: &Path) -> Result<(Vec<Class>, Vec<Image>)> {
    let truth = coco::panoptic(json)?;
    let (pictures, pngs) = (Finder::new(root), Finder::new(directory));
    let places = coco::places(&truth.classes);
    let mut annotations: HashMap<Id, (PathBuf, Vec<PanopticSegment>)> = HashMap::new();
    for annotation in truth.annotations {
        let id = annotation.image_id.clone();
        let (png, segments) = coco::segments(json, annotation, &places)?;
        let (png, _) = pngs.find(&png.to_string_lossy()).with_context(|| format!("{}", json.display()))?;
        if annotations.insert(id.clone(), (png, segments)).is_some() {
            bail!("{}: image {} has two annotations", json.display(), id.0);
        }
    }
    let (mut images, mut without) = (Vec::with_capacity(truth.images.len()), Vec::new());
    for ImageJson { id, file_name, .. } in truth.images {
        let Some((png, segments)) = annotations.remove(&id) else {
            without.push(file_name);
            continue;
        };
        let (path, name) = pictures.find(&file_name).with_context(|| format!("{}", json.display()))?;
        images.push(Image { path, id: id.0, name, record: Record::Panoptic { png, segments } });
    }
    if let Some(id) = annotations.keys().next() {
        bail!("{}: an annotation belongs to image {}, which is not among the images", json.display(), id.0);
    }
    if !without.is_empty() && !images.is_empty() {
        log::warn!("{}: pictures without an annotation are skipped: {}", json.display(), some_of(&without));
    }
    check_content(json, &images)?;
    Ok((things(json, truth.classes, &images), images))
}

/// A list that says nothing would give a score of nothing.
fn check_content(json: &Path, images: &[Image]) -> Result<()> {
    let all: Vec<&PanopticSegment> = images.iter().flat_map(segments).collect();
    if !images.is_empty() && all.is_empty() {
        bail!("{}: no image has a segment, so there is nothing to find", json.display());
    }
    if !all.is_empty() && all.iter().all(|segment| segment.crowd) {
        bail!("{}: all {} segments are crowds (iscrowd 1), which nobody has to find", json.display(), all.len());
    }
    Ok(())
}

fn segments(image: &Image) -> &[PanopticSegment] {
    match &image.record {
        Record::Panoptic { segments, .. } => segments,
        _ => &[],
    }
}

/// The classes; not a thing among them may mean that the writer did not know.
fn things(json: &Path, mut classes: Vec<Class>, images: &[Image]) -> Vec<Class> {
    if classes.iter().any(|class| class.is_thing != Some(false)) {
        return classes;
    }
    let twice = images.iter().any(|image| {
        let mut seen = vec![false; classes.len()];
        segments(image).iter().filter(|segment| !segment.crowd).any(|segment| std::mem::replace(&mut seen[segment.class], true))
    });
    if twice {
        log::warn!(
            "{}: isthing is 0 for every category, and pictures show several segments of one class: it is not believed, all are things",
            json.display()
        );
        classes.iter_mut().for_each(|class| class.is_thing = None);
    } else {
        log::warn!("{}: isthing is 0 for every category (datumaro 1.13 always writes so): all are taken for stuff", json.display());
    }
    classes
}

/// The map of a PNG with its segments, whose areas are counted.
pub fn map(png: &Path, mut segments: Vec<PanopticSegment>, max_pixels: u64) -> Result<PanopticMap> {
    let map = maps::panoptic_ids(png, max_pixels)?;
    let mut pixels: HashMap<u32, u64> = HashMap::new();
    for run in map.values.chunk_by(|a, b| a == b) {
        *pixels.entry(run[0]).or_default() += run.len() as u64;
    }
    segments.iter_mut().for_each(|segment| segment.area = pixels.get(&segment.id).copied().unwrap_or(0));
    Ok(PanopticMap { width: map.width, height: map.height, ids: map.values, segments })
}

/// A truth's map: what it and its JSON disagree on is told once.
pub fn truth_map(png: &Path, listed: &[PanopticSegment], once: &Once, max_pixels: u64) -> Result<PanopticMap> {
    let map = map(png, listed.to_vec(), max_pixels)?;
    let file = png.display();
    let differs = |(counted, listed): &(&PanopticSegment, &PanopticSegment)| listed.area != u64::MAX && counted.area != listed.area;
    if let Some((counted, listed)) = map.segments.iter().zip(listed).find(differs)
        && once.first("area")
    {
        log::warn!(
            "{file}: segment {} has {} pixels, and its area in the JSON is {}: pixels are counted (said once)",
            counted.id,
            counted.area,
            listed.area
        );
    }
    if let Some(id) = map.check(&file.to_string(), true)?
        && once.first("unlisted")
    {
        log::warn!("{file}: segment {id} is in the PNG and not in the JSON: its pixels are no class's (said once)");
    }
    Ok(map)
}
