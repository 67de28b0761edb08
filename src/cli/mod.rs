//! The command line: what each command takes. No logic; `main` and `commands` turn arguments into options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use eomt_edge_core::data::TokenMerging;
use eomt_edge_core::model::ReuseConfig;

/// Environment variables, for the help.
const ENVIRONMENT: &str = "\
Environment:
  EOMT_EDGE_ISA  Instruction set of the kernels, as `bench --isa` takes it [default: the best that this CPU has]
  RUST_LOG       Log filter";

/// On-device image segmentation with EoMT: from a checkpoint to masks in shared memory.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 110, after_help = ENVIRONMENT)]
pub struct Cli {
    #[command(subcommand)]
    #[allow(missing_docs)] // would become help text
    pub command: Command,
    /// More log lines: -v info, -vv debug (RUST_LOG overrides)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // would become help text
pub enum Command {
    /// The daemon: segments frames and publishes masks to other processes
    Run(RunArgs),
    /// Turn a checkpoint (Hugging Face directory, or the authors' .bin) into one ONNX file
    #[cfg(feature = "tools")]
    Convert(ConvertArgs),
    /// Segment pictures: overlay, COCO panoptic PNG and JSON of each
    #[cfg(feature = "tools")]
    Segment(SegmentArgs),
    /// Measure how good a model is: panoptic quality, mIoU, mask AP, and where it is wrong
    #[cfg(feature = "tools")]
    Evaluate(Box<EvaluateArgs>),
    /// Write procedural scenes with their ground truth, to evaluate on, to train on, or to try things with
    #[cfg(feature = "tools")]
    Scenes(ScenesArgs),
    /// Train from scratch or from a checkpoint, with mask annealing
    #[cfg(feature = "train")]
    Train(Box<TrainArgs>),
    /// Run the network alone on normalized pixel values (for numerical checks)
    #[cfg(feature = "tools")]
    Logits(LogitsArgs),
    /// Write the pixel values of a picture (for numerical checks)
    #[cfg(feature = "tools")]
    Preprocess(PreprocessArgs),
    /// Segments from given logits, numbered as the reference does (for numerical checks)
    #[cfg(feature = "tools")]
    Postprocess(PostprocessArgs),
    /// Time the stages of the frame path
    #[cfg(feature = "tools")]
    Bench(BenchArgs),
    /// Follow the masks of a running daemon
    View(ViewArgs),
    /// Ask a running daemon how it is, and change what may be changed while it runs
    Control(ControlArgs),
    /// What this machine offers, and what is wrong with it
    Doctor(DoctorArgs),
    /// Remove a dead daemon's socket; started by the daemon itself
    #[command(hide = true)]
    ReapSocket { path: PathBuf, dev: u64, ino: u64 },
    /// Load a model and run one frame, within limits; started by the daemon itself
    #[command(hide = true)]
    TryModel { parent: i32, path: PathBuf },
    /// Become a source's command, which ends with the daemon; started by the daemon itself
    #[command(hide = true)]
    ExecSource { parent: i32, command: String },
}

#[derive(Debug, Args)]
#[allow(missing_docs)] // would become help text
pub struct RunArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// ONNX file: model.path
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Where frames come from: `source.uri`.
    // as an attribute, since rustdoc would take its brackets for links
    #[arg(
        long,
        value_name = "SOURCE",
        help = "v4l2:/dev/video0, v4l2: (the one that works), replay:DIR[@fps], bag:FILE[:TOPIC][@fps], scenes[:seed], pipe:-, pipe:FIFO, exec:COMMAND, ros2:/TOPIC or ros2:fifo:PATH: source.uri",
        long_help = None
    )]
    pub source: Option<String>,
    /// Compute what the file has in f32 in bfloat16 where the CPU has such products: model.bf16
    #[arg(long)]
    pub bf16: bool,
    /// Merge this share of the patch tokens before a block: faster, less exact: model.merge
    #[arg(long, value_name = "RATIO[@BLOCK]")]
    pub merge: Option<TokenMerging>,
    /// Patches that do not change keep what they had: model.reuse [default without a value: 6,0.5,30]
    #[arg(long, num_args = 0..=1, default_missing_value = "6,0.5,30", value_name = "THRESHOLD[,BUDGET[,REFRESH]]")]
    pub reuse: Option<ReuseConfig>,
    /// A single key of the configuration, e.g. ring.slots=4
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// End after so many frames
    #[arg(long, value_name = "N")]
    pub frames: Option<u64>,
    /// Only load the model, compare it on two inputs with a plain evaluation of its file, and say what was found
    #[arg(long, conflicts_with_all = ["frames", "source"])]
    pub check: bool,
}

/// Arguments of `view`.
#[derive(Debug, Args)]
pub struct ViewArgs {
    /// The daemon's socket
    #[arg(long, default_value = "/run/eomt-edge/masks.sock", value_name = "PATH")]
    pub socket: PathBuf,
    /// End after so many frames
    #[arg(long, value_name = "N")]
    pub frames: Option<u64>,
    /// Save an overlay of each frame
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// One JSON object a frame
    #[arg(long)]
    pub json: bool,
    /// Seconds for the daemon to appear and give its first frame, together; then for each frame
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub timeout: u64,
}

/// Arguments of `control`.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// What to ask for.
    #[command(subcommand)]
    pub ask: ControlCommand,
    /// The daemon's control socket: control.socket
    #[arg(long, default_value = "/run/eomt-edge/control.sock", value_name = "PATH", global = true)]
    pub socket: PathBuf,
    /// The daemon's own answers, a JSON object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Seconds that an answer may take; trying a model takes its time
    #[arg(long, default_value_t = 300, value_name = "SECONDS", global = true)]
    pub timeout: u64,
}

#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // would become help text
pub enum ControlCommand {
    /// How it is: rate, model, thresholds, memory
    Status,
    /// The last lines of its log
    Log {
        /// Only those after this number
        #[arg(long, default_value_t = 0, value_name = "N")]
        after: u64,
    },
    /// Other thresholds, from the next frame on until a reload, another model or a restart
    Thresholds {
        /// A segment needs this score, 0 to 1
        #[arg(long, value_name = "X")]
        threshold: Option<f64>,
        /// A pixel belongs to a mask from this probability on
        #[arg(long, value_name = "X")]
        mask_threshold: Option<f64>,
        /// A panoptic segment must win more than this share of its mask
        #[arg(long, value_name = "X")]
        overlap_threshold: Option<f64>,
    },
    /// Read configuration and model again, as SIGHUP does, and say whether that went well
    Reload,
    /// Switch to another model of control.models, until a reload or a restart
    Model {
        /// The file's name, without a directory
        name: String,
    },
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The service's configuration file
    #[arg(long, default_value = "/etc/eomt-edge/eomt-edge.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// ONNX file [default: the configuration's]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// The daemon's socket [default: the configuration's]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

#[cfg(feature = "tools")]
mod dataset;
#[cfg(feature = "tools")]
mod evaluate;
#[cfg(feature = "tools")]
mod tools;
#[cfg(feature = "train")]
mod train;
#[cfg(feature = "tools")]
mod values;
#[cfg(feature = "tools")]
pub use dataset::{CrowdsArg, DatasetArgs};
#[cfg(feature = "tools")]
pub use evaluate::{AnomalyArg, EvaluateArgs, MatchArg, TrackerArg};
#[cfg(feature = "tools")]
pub use tools::*;
#[cfg(feature = "train")]
pub use train::{ArchitectureArg, MaskingArg, TrainArgs};
#[cfg(feature = "tools")]
pub use values::{ClassList, InputSize};
