//! Arguments of `evaluate`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use eomt_edge_core::data::{Exif, Normalization, Task, TokenMerging};
use eomt_edge_core::model::ReuseConfig;

use super::dataset::DatasetArgs;
use super::tools::ThresholdArgs;
use super::values::{first_stray, rate, speed, threads};

fn two_values(text: &str) -> Result<[u16; 2], String> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let values = text.split_once(',').and_then(|(normal, anomalous)| Some([number(normal)?, number(anomalous)?]));
    values.filter(|[a, b]| a != b).ok_or_else(|| "it is two different values, NORMAL,ANOMALOUS".to_owned())
}

/// How labels of a model and classes of a dataset are paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MatchArg {
    /// By their names
    Name,
    /// By the number of the label and the id of the category
    Id,
    /// By their order
    Order,
}

/// The anomaly score of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnomalyArg {
    /// One minus the largest class score
    Max,
    /// Rejected by all classes: minus the sum of tanh(class score)
    Rba,
}

/// Where ids of clips come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TrackerArg {
    /// The daemon's tracker
    Lasting,
    /// Overlap of boxes alone, to compare with
    Iou,
    /// Ids of the files; a model's segments are numbered anew in each frame
    None,
}

/// Arguments of `evaluate`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("predicted").required(true).args(["model", "compare", "predictions"])))]
#[command(group(ArgGroup::new("dataset").required(true).args(["panoptic_json", "instances", "class_maps", "yolo", "anomaly_dir", "video"])))]
pub struct EvaluateArgs {
    /// ONNX file
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Two ONNX files side by side: the scores, their difference, and the images at which they differ most
    #[arg(long, value_names = ["A", "B"], num_args = 2)]
    pub compare: Option<Vec<PathBuf>>,
    /// Predictions instead of a model: a directory of what segment wrote (or of class maps, or of anomaly scores), or a file of COCO results
    #[arg(long, value_name = "DIR|FILE")]
    pub predictions: Option<PathBuf>,
    /// COCO panoptic predictions, with their PNGs in --predictions
    #[arg(long, value_name = "FILE", requires = "predictions")]
    pub predictions_json: Option<PathBuf>,
    /// The annotated pictures.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// Ground truth: PNGs of 0 (normal), 1 (anomalous: not among the classes of the training) and 255 (does not count)
    #[arg(long, value_name = "DIR")]
    pub anomaly_dir: Option<PathBuf>,
    /// The anomaly score of a pixel with --anomaly-dir
    #[arg(long, value_enum, default_value = "max")]
    pub anomaly_score: AnomalyArg,
    /// Values of normal and of anomalous pixels with --anomaly-dir
    #[arg(long, value_parser = two_values, default_value = "0,1", value_name = "NORMAL,ANOMALOUS", requires = "anomaly_dir")]
    pub anomaly_values: [u16; 2],
    /// Ground truth: a clip whose segments keep their ids (panoptic.json, panoptic/, images/), or a folder of clips; scores ids over time,
    /// with --predictions those of a folder of the same layout
    #[arg(long, value_name = "DIR")]
    pub video: Option<PathBuf>,
    /// Video: where ids come from [default: lasting for a model, none for --predictions]
    #[arg(long, value_enum, value_name = "TRACKER", requires = "video")]
    pub tracker: Option<TrackerArg>,
    /// Video: seconds for which a thing that is not seen keeps its id, as track.memory
    #[arg(long, default_value_t = 5.0, value_parser = speed, requires = "video", value_name = "SECONDS")]
    pub memory: f64,
    /// Video: frames a second
    #[arg(long, default_value_t = 15.0, value_parser = rate, requires = "video", value_name = "N")]
    pub fps: f64,
    /// Video: saves the predictions as clips of the same layout
    #[arg(long, value_name = "DIR", requires = "video")]
    pub save: Option<PathBuf>,
    /// How labels of the model and categories of the dataset are paired
    #[arg(long = "match", value_enum, default_value = "name")]
    pub match_by: MatchArg,
    /// panoptic, instance or semantic [default: the ground truth's, else the model's]
    #[arg(long)]
    pub task: Option<Task>,
    /// Thresholds.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
    /// Pictures are frames of one clip, in the order of the dataset, and patches that do not change keep what they had, as run does with --reuse [default without a value: 6,0.5,30]
    #[arg(long, num_args = 0..=1, default_missing_value = "6,0.5,30", value_name = "THRESHOLD[,BUDGET[,REFRESH]]")]
    pub reuse: Option<ReuseConfig>,
    /// Semantic: overlapping windows along the longer side instead of padding
    #[arg(long)]
    pub windows: bool,
    /// Only the pictures that `train --validate N` held out: of every N the last one
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..), value_name = "N")]
    pub held_out: Option<u32>,
    /// Only the first N images
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub limit: Option<u32>,
    /// An HTML report with pictures of the worst images (or the most different ones)
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Images that the report shows and --compare names
    #[arg(long, default_value_t = 12, value_name = "N")]
    pub shown: usize,
    /// Exports by others: normalization is inside or outside of the network [default: as its graph shows]
    #[arg(long, default_value = "auto", hide_default_value = true, value_name = "WHERE")]
    pub normalization: Normalization,
    /// Compute what the file has in f32 in bfloat16 where the CPU has such products: faster, less exact
    #[arg(long)]
    pub bf16: bool,
    /// Merge this share of the patch tokens before a block: faster, less exact
    #[arg(long, default_value = "0", hide_default_value = true, value_name = "RATIO[@BLOCK]")]
    pub merge: TokenMerging,
    /// Threads for one inference, 0 = one per core
    #[arg(long, default_value_t = 0, value_parser = threads)]
    pub threads: usize,
    /// apply: turn pictures as their EXIF orientation says; ignore: take them as they are stored
    #[arg(long, default_value = "apply", value_name = "apply|ignore")]
    pub exif: Exif,
    /// Larger pictures are refused
    #[arg(long, default_value_t = 64 << 20, value_name = "N")]
    pub max_pixels: u64,
    /// One JSON object instead of a table, values 0 to 1
    #[arg(long)]
    pub json: bool,
}

impl EvaluateArgs {
    /// [`DatasetArgs::stray`] for all options of the command.
    pub fn stray(&self) -> Option<[&'static str; 2]> {
        let (anomalies, video) = (self.anomaly_dir.is_some(), self.video.is_some());
        let own = [
            (self.predictions_json.is_some(), self.predictions.is_some(), ["--predictions-json", "--predictions"]),
            (self.bf16, self.predictions.is_none(), ["--bf16", "--model"]),
            (!self.merge.is_off(), self.predictions.is_none(), ["--merge", "--model"]),
            (self.anomaly_values != [0, 1], anomalies, ["--anomaly-values", "--anomaly-dir"]),
            (self.anomaly_score != AnomalyArg::Max, anomalies, ["--anomaly-score", "--anomaly-dir"]),
            (self.tracker.is_some(), video, ["--tracker", "--video"]),
            (self.memory != 5.0, video, ["--memory", "--video"]),
            (self.fps != 15.0, video, ["--fps", "--video"]),
            (self.save.is_some(), video, ["--save", "--video"]),
        ];
        first_stray(&own).or_else(|| self.dataset.stray())
    }

    /// The first option that says nothing about clips.
    pub fn not_of_video(&self) -> Option<&'static str> {
        let given = [
            (self.compare.is_some(), "--compare"),
            (self.held_out.is_some(), "--held-out"),
            (self.predictions_json.is_some(), "--predictions-json"),
            (self.dataset.images.is_some(), "--images"),
            (self.task.is_some_and(|task| task != Task::Panoptic), "--task"),
            (self.windows, "--windows"),
            (self.report.is_some(), "--report"),
            (self.exif != Exif::Apply, "--exif"),
        ];
        given.iter().find(|(given, _)| *given).map(|(_, name)| *name)
    }
}
