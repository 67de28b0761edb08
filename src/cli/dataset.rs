//! Arguments that name annotated pictures: the same for `train` and `evaluate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{ClassList, class_list, first_stray};

/// What objects with `iscrowd` 1 are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CrowdsArg {
    /// Groups that no prediction has to find
    Apart,
    /// Objects like others: CVAT and datumaro mark every brush mask that way
    Objects,
}

fn suffixes(text: &str) -> Result<[String; 2], String> {
    let (picture, map) = text.split_once(',').ok_or("it is two ends of file names: PICTURE,MAP as _sat.jpg,_mask.png")?;
    Ok([picture.trim().to_owned(), map.trim().to_owned()])
}

/// Annotated pictures, for `train` and `evaluate`.
#[derive(Debug, Args)]
pub struct DatasetArgs {
    /// The pictures; for `evaluate` a ROS 2 bag, too (with --predictions it needs them only for --report; --yolo names its own)
    #[arg(long, value_name = "DIR|BAG")]
    pub images: Option<PathBuf>,
    /// Annotations: COCO panoptic, also as cityscapesScripts or datumaro write it
    #[arg(long, value_name = "FILE", requires = "panoptic_dir")]
    pub panoptic_json: Option<PathBuf>,
    /// The PNGs of --panoptic-json
    #[arg(long, value_name = "DIR", requires = "panoptic_json")]
    pub panoptic_dir: Option<PathBuf>,
    /// Annotations: COCO instances, polygons or run lengths (CVAT, Roboflow, Label Studio, LabelMe); to train on, smaller objects lie on
    /// top of larger ones, and of equal ones the later
    #[arg(long, value_name = "FILE")]
    pub instances: Option<PathBuf>,
    /// Instances: what objects with iscrowd 1 are
    #[arg(long, value_enum, default_value = "apart", value_name = "KIND", requires = "instances")]
    pub crowds: CrowdsArg,
    /// Annotations: YOLO segmentation, its data.yaml (or a folder with images, labels and classes.txt)
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "images")]
    pub yolo: Option<PathBuf>,
    /// Which set of --yolo: train, val, test [default: train to train, val to evaluate]
    #[arg(long, value_name = "SET", requires = "yolo")]
    pub split: Option<String>,
    /// Annotations: PNGs whose values are classes, named as the pictures, or as Cityscapes and mmsegmentation name them
    #[arg(long, value_name = "DIR")]
    pub class_maps: Option<PathBuf>,
    /// Class maps: ends of the names of pictures and maps where they differ, as _sat.jpg,_mask.png
    #[arg(long, value_parser = suffixes, value_name = "PICTURE,MAP", requires = "class_maps")]
    pub suffixes: Option<[String; 2]>,
    /// Class maps: names of the classes in order, with commas between, or a file with one a line, or ade20k, cityscapes, voc [default: a
    /// labelmap.txt or class_names.txt beside the maps, else those of the model]
    #[arg(long, value_name = "NAMES|FILE", requires = "class_maps")]
    pub class_names: Option<String>,
    /// Class maps: values that do not count, separated by commas
    #[arg(long, value_parser = class_list, default_value = "255", value_name = "VALUES", requires = "class_maps")]
    pub ignore_label: ClassList,
    /// Class maps: the value of class 0 (ADE20K: 1, with --ignore-label 0)
    #[arg(long, default_value_t = 0, value_name = "N", requires = "class_maps")]
    pub label_offset: u16,
    /// Class maps: the value of each class in order, separated by commas; other values do not count
    #[arg(long, value_parser = class_list, value_name = "VALUES", conflicts_with = "label_offset", requires = "class_maps")]
    pub class_values: Option<ClassList>,
}

impl DatasetArgs {
    /// The first option without the one that it belongs to, and that one. clap's `requires` does not report it when the user gives another
    /// kind of annotations, which excludes the owner.
    pub fn stray(&self) -> Option<[&'static str; 2]> {
        let maps = self.class_maps.is_some();
        first_stray(&[
            (self.panoptic_dir.is_some(), self.panoptic_json.is_some(), ["--panoptic-dir", "--panoptic-json"]),
            (self.crowds == CrowdsArg::Objects, self.instances.is_some(), ["--crowds", "--instances"]),
            (self.split.is_some(), self.yolo.is_some(), ["--split", "--yolo"]),
            (self.suffixes.is_some(), maps, ["--suffixes", "--class-maps"]),
            (self.class_names.is_some(), maps, ["--class-names", "--class-maps"]),
            (self.class_values.is_some(), maps, ["--class-values", "--class-maps"]),
            (self.label_offset != 0, maps, ["--label-offset", "--class-maps"]),
            (self.ignore_label.0 != [255], maps, ["--ignore-label", "--class-maps"]),
        ])
    }
}
