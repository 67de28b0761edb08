//! Folders of class maps: PNGs whose values are classes (VOC, ADE20K, Cityscapes, mmsegmentation, labelme2voc, CVAT's masks).
//!
//! [`super::pairs`] finds the map of a picture, [`super::naming`] the names of the classes.
//! Refuses: colours without a list of them, values that are no class.

use std::path::{Path, PathBuf};

use anyhow::Result;
use eomt_edge_core::data::Task;
use eomt_edge_host::output::usage;

use super::format::{Format, GroundTruth, Image, NamedBy, Opening};
use super::labels::{Class, ClassMap, Labels, NO_CLASS, PanopticMap, PanopticSegment};
use super::maps::{self, Colours};
use super::naming::{self, ClassValues, Naming};
use super::{fingerprint, pairs};

/// The number of classes when neither the dataset nor a model tells it. Classes that do not occur have no scores.
const UNNAMED_CLASSES: usize = 256;

/// A folder of class maps.
#[derive(Debug, Clone)]
pub struct ClassMaps {
    /// The folder, which may have folders inside.
    pub directory: PathBuf,
    /// What the values mean.
    pub values: ClassValues,
    /// In the order of the classes; `None`: a file beside the maps names them, else the model.
    pub names: Option<Vec<String>>,
    /// Endings of the names of pictures and of their maps.
    pub suffixes: Option<[String; 2]>,
}

struct Opened {
    directory: PathBuf,
    images: Vec<Image>,
    maps: Vec<PathBuf>,
    meaning: Meaning,
    max_pixels: u64,
}

/// What the values and colours of the maps mean.
struct Meaning {
    classes: Vec<Class>,
    named_by: NamedBy,
    values: ClassValues,
    colours: Colours,
}

impl Format for ClassMaps {
    fn open(&self, opening: &Opening) -> Result<Box<dyn GroundTruth>> {
        let (images, maps) = pairs::paired(&self.directory, opening.images, self.suffixes.as_ref())?;
        let meaning = self.meaning(&maps, opening.labels)?;
        Ok(Box::new(Opened { directory: self.directory.clone(), images, maps, meaning, max_pixels: opening.max_pixels }))
    }
}

impl ClassMaps {
    fn meaning(&self, maps: &[PathBuf], labels: Option<&[String]>) -> Result<Meaning> {
        let mut meaning = Meaning { classes: Vec::new(), named_by: NamedBy::Dataset, values: self.values.clone(), colours: Colours::new() };
        let mut known = self.names.clone();
        let beside = naming::naming(&self.directory, maps, &self.values)?;
        // names that the user gives are of another dataset than Cityscapes, whatever the names of the files
        if let Some(Naming { names, values, colours, assumed }) = beside.filter(|beside| !beside.assumed || known.is_none()) {
            // another dataset, whatever the names of the files, when the model has as many labels and none of these names
            let plain = |name: &String| name.trim().to_lowercase();
            let unrelated = |labels: &[String]| !labels.iter().any(|label| names.iter().any(|name| plain(name) == plain(label)));
            let believed = !assumed || labels.is_none_or(|labels| labels.len() != names.len() || !unrelated(labels));
            if known.is_none() && believed {
                meaning.named_by = if assumed { NamedBy::Convention } else { NamedBy::Dataset };
                known = Some(names);
            }
            (meaning.values, meaning.colours) = (values, colours);
        }
        if known.is_none() {
            meaning.named_by = if labels.is_some() { NamedBy::Model } else { NamedBy::Unknown };
            known = labels.map(<[String]>::to_vec);
        }
        if meaning.colours.is_empty() {
            meaning.colours = self.names.as_deref().map(naming::colours_of).unwrap_or_default();
        }
        let listed = meaning.values.listed.as_ref().map(Vec::len);
        let count = listed.unwrap_or(known.as_ref().map_or(UNNAMED_CLASSES, Vec::len));
        if let Some(known) = known.as_ref().filter(|known| known.len() != count) {
            let who = if meaning.named_by == NamedBy::Model { "the model has" } else { "there are names of" };
            return usage(format!("--class-values lists {count} classes, and {who} {}", known.len()));
        }
        let name = |class: usize| known.as_ref().map_or_else(|| format!("class {class}"), |known| known[class].clone());
        meaning.classes = (0..count).map(|class| Class { id: class as u64, name: name(class), is_thing: None }).collect();
        Ok(meaning)
    }
}

impl GroundTruth for Opened {
    fn source(&self) -> &Path {
        &self.directory
    }

    fn images(&self) -> &[Image] {
        &self.images
    }

    fn classes(&self) -> &[Class] {
        &self.meaning.classes
    }

    fn named_by(&self) -> NamedBy {
        self.meaning.named_by
    }

    fn natural_task(&self) -> Option<Task> {
        Some(Task::Semantic)
    }

    fn file(&self, image: usize) -> Option<&Path> {
        Some(&self.maps[image])
    }

    fn size(&self, image: usize) -> Result<(u32, u32)> {
        maps::size(&self.maps[image])
    }

    fn labels(&self, image: usize, task: Task) -> Result<Labels> {
        match task {
            Task::Semantic => self.predicted_classes(&self.maps[image]).map(Labels::Semantic),
            _ => usage("--class-maps is a ground truth for --task semantic only"),
        }
    }

    /// Every class is one segment.
    fn segments(&self, image: usize) -> Result<PanopticMap> {
        let map = self.predicted_classes(&self.maps[image])?;
        let mut areas = vec![0; self.meaning.classes.len()];
        map.classes.iter().filter(|class| **class != NO_CLASS).for_each(|class| areas[usize::from(*class)] += 1);
        let id = |class: usize| class as u32 + 1;
        let segment = |(class, area): (usize, &u64)| PanopticSegment { id: id(class), class, area: *area, crowd: false, score: None };
        let segments = areas.iter().enumerate().filter(|(_, area)| **area > 0).map(segment).collect();
        let ids = map.classes.iter().map(|class| if *class == NO_CLASS { 0 } else { id(usize::from(*class)) }).collect();
        Ok(PanopticMap { width: map.width, height: map.height, ids, segments })
    }

    fn fingerprint(&self) -> Result<Vec<u8>> {
        let length = |image: usize| format!("{:?}", self.maps[image].metadata().ok().map(|metadata| metadata.len()));
        Ok(fingerprint::of_images(&self.meaning.values, self, length))
    }

    fn predicted_classes(&self, png: &Path) -> Result<ClassMap> {
        let map = maps::values(png, &self.meaning.colours, self.max_pixels)?;
        let count = self.meaning.classes.len();
        ClassMap::of_values(png, &map, count, |value| self.meaning.values.class(value, count))
    }
}
