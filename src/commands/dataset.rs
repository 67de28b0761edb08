//! The formats of datasets that the command line knows.

use std::path::PathBuf;
use std::sync::Arc;

use eomt_edge::cli::{CrowdsArg, DatasetArgs};
use eomt_edge_host::output::usage;
use eomt_edge_tools::datasets::{AnomalyMasks, ClassMaps, ClassValues, CocoInstances, CocoPanoptic, Crowds, Format, Yolo, names_of};

/// What the options of one command say about the dataset.
struct Given {
    args: DatasetArgs,
    /// Of `evaluate` only.
    anomaly_dir: Option<PathBuf>,
    /// The set to read when the user names none.
    split: &'static str,
}

/// The format whose options were given.
type Recognize = fn(&Given) -> anyhow::Result<Option<Arc<dyn Format>>>;

/// Every format. A new one adds a line; clap makes sure that the options of one format only are given.
const FORMATS: [Recognize; 5] = [coco_panoptic, coco_instances, class_maps, yolo, anomaly_masks];

/// The dataset that the arguments name, if they name one. `split` is the set to read when the user names none.
pub fn format(args: DatasetArgs, anomaly_dir: Option<PathBuf>, split: &'static str) -> anyhow::Result<Option<Arc<dyn Format>>> {
    let given = Given { args, anomaly_dir, split };
    FORMATS.iter().find_map(|recognize| recognize(&given).transpose()).transpose()
}

/// Refuses an option without the one that it belongs to.
pub fn refuse_stray(stray: Option<[&str; 2]>) -> anyhow::Result<()> {
    match stray {
        Some([option, owner]) => usage(format!("{option} belongs to {owner}, which is not given")),
        None => Ok(()),
    }
}

fn coco_panoptic(Given { args, .. }: &Given) -> anyhow::Result<Option<Arc<dyn Format>>> {
    let (Some(json), Some(directory)) = (args.panoptic_json.clone(), args.panoptic_dir.clone()) else { return Ok(None) };
    Ok(Some(Arc::new(CocoPanoptic { json, directory })))
}

fn coco_instances(Given { args, .. }: &Given) -> anyhow::Result<Option<Arc<dyn Format>>> {
    let Some(json) = args.instances.clone() else { return Ok(None) };
    let crowds = match args.crowds {
        CrowdsArg::Apart => Crowds::Apart,
        CrowdsArg::Objects => Crowds::Objects,
    };
    Ok(Some(Arc::new(CocoInstances { json, crowds })))
}

fn class_maps(Given { args, .. }: &Given) -> anyhow::Result<Option<Arc<dyn Format>>> {
    let Some(directory) = args.class_maps.clone() else { return Ok(None) };
    let listed = args.class_values.as_ref().map(|values| values.0.clone());
    let values = ClassValues { ignore: args.ignore_label.0.clone(), offset: args.label_offset, listed };
    let names = args.class_names.as_deref().map(names_of).transpose()?;
    Ok(Some(Arc::new(ClassMaps { directory, values, names, suffixes: args.suffixes.clone() })))
}

fn yolo(Given { args, split, .. }: &Given) -> anyhow::Result<Option<Arc<dyn Format>>> {
    let Some(place) = args.yolo.clone() else { return Ok(None) };
    Ok(Some(Arc::new(Yolo { place, split: args.split.clone().unwrap_or_else(|| (*split).to_owned()) })))
}

fn anomaly_masks(Given { anomaly_dir, .. }: &Given) -> anyhow::Result<Option<Arc<dyn Format>>> {
    let Some(directory) = anomaly_dir.clone() else { return Ok(None) };
    Ok(Some(Arc::new(AnomalyMasks { directory })))
}
