//! Arguments of the commands beside the daemon.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use eomt_edge_core::data::{Exif, Normalization, Task, TokenMerging};
use eomt_edge_core::model::ReuseConfig;

use super::values::{ClassList, INPUT_SIDE_MAX, InputSize, class_list, input_size, probability, rate, speed, threads};

/// What `--isa` takes: `kernels::arch` says which of them this CPU has.
const ISA_NAMES: [&str; 10] = ["auto", "amx", "avx512bf16", "avx512vnni", "avxvnni", "avx2", "i8mm", "dotprod", "neon", "scalar"];

/// How `convert` stores weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // clap would print them, and stretch the help of every option over two lines
pub enum PrecisionArg {
    F32,
    Bf16,
    Int8,
}

/// Arguments of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Directory with config.json and model.safetensors, or a .bin in the authors' layout
    pub checkpoint: PathBuf,
    /// The ONNX file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// How the weights of the linear layers are stored: bf16 is half of the size, int8 a quarter, with a table of every layer's error
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: PrecisionArg,
    /// Input size, N or HEIGHTxWIDTH, multiples of the patch size [default: that of training]
    #[arg(long, value_parser = input_size)]
    pub size: Option<InputSize>,
    /// panoptic, instance or semantic [default: what the checkpoint says]
    #[arg(long)]
    pub task: Option<Task>,
    /// Stuff classes by label or index, separated by commas [default: what the labels say]
    #[arg(long, value_delimiter = ',', value_name = "CLASSES")]
    pub stuff: Option<Vec<String>>,
    /// What the authors' layout does not tell: a JSON file, or a published model's name [default: from the path]
    #[arg(long, visible_alias = "preset", value_name = "FILE|NAME")]
    pub hints: Option<String>,
    /// Directory with the DINOv3 weights that a delta checkpoint builds on
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Pictures like those to come, or a ROS 2 bag of them, to calibrate int8 with; of many, 16 are used, few are filled up to 11 [default: procedural scenes]
    #[arg(long, value_name = "DIR|BAG")]
    pub calibrate: Option<PathBuf>,
    /// The licence of the weights, to be stored in the file [default: what config.json or the model card beside them says]
    #[arg(long, visible_alias = "license", value_name = "TEXT")]
    pub licence: Option<String>,
    /// Thresholds.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
    /// Do not load the result and compare it with its plain evaluation on two inputs
    #[arg(long)]
    pub no_check: bool,
}

/// Thresholds that several commands take.
#[derive(Debug, Args)]
pub struct ThresholdArgs {
    /// A segment needs this score, 0 to 1 [default: the model's; 0.8 if it has none]
    #[arg(long, value_parser = probability, value_name = "X")]
    pub threshold: Option<f64>,
    /// A pixel belongs to a mask from this probability on [default: the model's; 0.5 if it has none]
    #[arg(long, value_parser = probability, value_name = "X")]
    pub mask_threshold: Option<f64>,
    /// A panoptic segment must win more than this share of its mask [default: the model's; 0.8 if it has none]
    #[arg(long, value_parser = probability, value_name = "X")]
    pub overlap_threshold: Option<f64>,
}

/// Arguments of `segment`.
#[derive(Debug, Args)]
pub struct SegmentArgs {
    /// ONNX file
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// PNG or JPEG pictures, or ROS 2 bags of pictures (BAG or BAG:/TOPIC)
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// Directory of the results
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// panoptic, instance or semantic [default: the model's]
    #[arg(long)]
    pub task: Option<Task>,
    /// Thresholds.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
    /// Semantic: overlapping windows along the longer side instead of padding
    #[arg(long)]
    pub windows: bool,
    /// The pictures are the frames of one clip, in this order: a network for video goes on from each to the next
    #[arg(long, conflicts_with = "windows")]
    pub video: bool,
    /// Compute the masks of all queries, also of those that cannot survive (same result, slower)
    #[arg(long)]
    pub all_queries: bool,
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
}

/// Arguments of `logits`.
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// ONNX file
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// safetensors with pixel_values, f32 [1, 3, H, W] or [1, frames, 3, H, W], normalized; several files are one clip
    #[arg(required = true)]
    pub inputs: Vec<PathBuf>,
    /// safetensors with class_queries_logits and masks_queries_logits
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
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
}

/// Arguments of `preprocess`.
#[derive(Debug, Args)]
pub struct PreprocessArgs {
    /// PNG or JPEG picture
    pub image: PathBuf,
    /// Input size, N or HEIGHTxWIDTH
    #[arg(long, value_parser = input_size)]
    pub size: InputSize,
    /// safetensors with pixel_values
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// apply: turn pictures as their EXIF orientation says; ignore: take them as they are stored
    #[arg(long, default_value = "apply", value_name = "apply|ignore")]
    pub exif: Exif,
    /// Larger pictures are refused
    #[arg(long, default_value_t = 64 << 20, value_name = "N")]
    pub max_pixels: u64,
}

/// Arguments of `postprocess`.
#[derive(Debug, Args)]
pub struct PostprocessArgs {
    /// panoptic, instance or semantic
    #[arg(long)]
    pub task: Task,
    /// safetensors with class_queries_logits and masks_queries_logits
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Width of the frame
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub width: u32,
    /// Height of the frame
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub height: u32,
    /// The network's input size, N or HEIGHTxWIDTH
    #[arg(long, value_parser = input_size)]
    pub input_size: InputSize,
    /// Stuff classes by index, separated by commas [default: none]
    #[arg(long, value_parser = class_list, default_value = "", hide_default_value = true, value_name = "CLASSES")]
    pub stuff: ClassList,
    /// Thresholds.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
    /// Semantic: cut the padding away, as segment and run do; the reference does not
    #[arg(long)]
    pub unpad: bool,
    /// Directory of ids.png and segments.json
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// ONNX file
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
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
    /// Frames that count, after a warm-up
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub frames: u32,
    /// A picture instead of a procedural scene, or a directory of frames, which are taken in the order of their names, again and again
    #[arg(long, value_name = "FILE|DIR")]
    pub image: Option<PathBuf>,
    /// Patches that do not change from frame to frame keep what they had, as run does with --reuse [default without a value: 6,0.5,30]
    #[arg(long, num_args = 0..=1, default_missing_value = "6,0.5,30", value_name = "THRESHOLD[,BUDGET[,REFRESH]]")]
    pub reuse: Option<ReuseConfig>,
    /// A segment needs this score [default: the model's]
    #[arg(long, value_parser = probability, value_name = "X")]
    pub threshold: Option<f64>,
    /// Compute the masks of all queries, also of those that cannot survive (same result, slower)
    #[arg(long)]
    pub all_queries: bool,
    /// Instruction set of the kernels [default: EOMT_EDGE_ISA, else the best that this CPU has]
    #[arg(long, value_parser = ISA_NAMES, value_name = "NAME")]
    pub isa: Option<String>,
    /// Also each kind of operator: time, work, share of this machine's peak
    #[arg(long)]
    pub operators: bool,
    /// Also compare with ONNX Runtime: its shared library, e.g. libonnxruntime.so (same file, same threads, in turns, network only, masks of all queries)
    #[arg(long, value_name = "LIB")]
    pub compare_ort: Option<PathBuf>,
    /// For an instruction counter: only the network, on a fixed tensor or the frames of --image, without a warm-up; on 64-bit ARM `hint #112` after loading and after each of the --frames
    #[arg(long, conflicts_with_all = ["json", "operators", "compare_ort"])]
    pub mark: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `scenes`.
#[derive(Debug, Args)]
pub struct ScenesArgs {
    /// Directory that gets images/, panoptic/ and panoptic.json
    pub output: PathBuf,
    /// Number of pictures
    #[arg(long, default_value_t = 200)]
    pub count: u64,
    /// The same seed gives the same pictures
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Pixels of a side
    #[arg(long, default_value_t = 192, value_parser = clap::value_parser!(u32).range(8..=INPUT_SIDE_MAX as i64))]
    pub size: u32,
    /// Say only where these are, as for a task with fewer classes: box,floor [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CLASSES")]
    pub classes: Vec<String>,
    /// Probability of each of blur, darkness and noise, 0 to 1; the ground truth stays that of the seed
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    pub degrade: f64,
    /// One moving scene instead, of --count frames; an object keeps its segment id. Three quarters of --size high
    #[arg(long, conflicts_with_all = ["classes", "degrade"])]
    pub clip: bool,
    /// Clip: frames a second
    #[arg(long, default_value_t = 15.0, value_parser = rate, requires = "clip", value_name = "N")]
    pub fps: f64,
    /// Clip: how fast the camera goes to and fro, widths of the picture a second
    #[arg(long, default_value_t = 0.0, value_parser = speed, requires = "clip", value_name = "SPEED")]
    pub pan: f64,
    /// Clip: deviation of the noise that is added, levels of 255
    #[arg(long, default_value_t = 0.0, value_parser = speed, requires = "clip", value_name = "LEVELS")]
    pub noise: f64,
    /// Clip: changes to another scene, evenly spread
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1000), requires = "clip", value_name = "N")]
    pub cuts: u64,
}
