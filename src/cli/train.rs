//! Arguments of `train`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use eomt_edge_core::data::Exif;

use super::dataset::DatasetArgs;
use super::values::probability;
use crate::config::THREADS_MAX;

fn pair(text: &str) -> Result<[f64; 2], String> {
    let (low, high) = text.split_once(',').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
    number(low).zip(number(high)).map(|(low, high)| [low, high]).ok_or_else(|| "it must be two numbers, LOW,HIGH".to_owned())
}

fn steps(text: &str) -> Result<[u64; 2], String> {
    let (heads, encoder) = text.split_once(',').ok_or("it must be two numbers of steps: HEADS,ENCODER")?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("'{text}' is no number of steps"));
    Ok([number(heads)?, number(encoder)?])
}

/// First and last step of mask annealing, of each block with queries.
#[derive(Debug, Clone, PartialEq)]
pub struct Spans(pub Vec<[f64; 2]>);

fn spans(text: &str) -> Result<Spans, String> {
    let number = |text: &str| text.trim().parse::<u32>().ok().map(f64::from);
    let span = |text: &str| {
        let (start, end) = text.split_once('-')?;
        Some([number(start)?, number(end)?])
    };
    let spans: Option<Vec<[f64; 2]>> = text.split(',').map(span).collect();
    spans.map(Spans).ok_or_else(|| "it must be START-END for each block with queries, in steps, separated by commas".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|value| *value > 0.0 && value.is_finite()).ok_or_else(|| "it must be above 0".to_owned())
}

/// Whether queries attend only inside their masks in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MaskingArg {
    /// At first always, then block by block less, at last never
    Annealed,
    /// Always; inference needs the masks too
    Kept,
    /// Never
    Never,
}

/// What is trained: EoMT, or what it is left of (EoMT paper, Table 1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ArchitectureArg {
    /// ViT-Adapter with Mask2Former
    VitAdapterM2f,
    /// A simple feature pyramid instead of the adapter
    NoAdapter,
    /// And no pixel decoder
    NoPixelDecoder,
    /// And one scale instead of three
    NoMultiScale,
    /// And no transformer decoder: the encoder-only mask transformer
    #[default]
    Eomt,
}

/// Arguments of `train`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("pictures").required(true).args(["scenes", "panoptic_json", "instances", "class_maps", "yolo", "video"]))]
pub struct TrainArgs {
    /// Directory of the run: state, curves and the checkpoint; an unfinished run there goes on
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Checkpoint to start from (as `convert` takes it; its labels may be others), or a DINOv2 or DINOv3 backbone without heads, which start at random then
    /// [default: random weights]
    #[arg(long, value_name = "CHECKPOINT")]
    pub from: Option<PathBuf>,
    /// Learn from procedural scenes without end, drawn from this seed
    #[arg(long, value_name = "SEED")]
    pub scenes: Option<u64>,
    /// Learn from clips, so that queries go on from frame to frame (VidEoMT): a folder with panoptic.json, panoptic/ and images/, or a folder of such, as
    /// `evaluate --video` reads them
    #[arg(long, value_name = "DIR", conflicts_with_all = ["images", "validate"])]
    pub video: Option<PathBuf>,
    /// Of --video: consecutive frames that are learned from together [default: 5]
    #[arg(long, value_name = "N")]
    pub frames: Option<usize>,
    /// The annotated pictures.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// apply: turn pictures as their EXIF orientation says; ignore: take them as they are stored
    #[arg(long, default_value = "apply", value_name = "apply|ignore")]
    pub exif: Exif,
    /// What to train from random weights: EoMT, or a network from ViT-Adapter with Mask2Former down to it
    #[arg(long, value_enum, default_value_t, conflicts_with = "from")]
    pub architecture: ArchitectureArg,
    /// Width of Mask2Former's decoders, a multiple of 32 [default: 256; all --architecture but eomt]
    #[arg(long, conflicts_with = "from")]
    pub decoder_width: Option<usize>,
    /// Layers of its transformer decoder [default: 9; all --architecture but eomt]
    #[arg(long, conflicts_with = "from")]
    pub decoder_layers: Option<usize>,
    /// Layers of its pixel decoder [default: 6; --architecture vit-adapter-m2f and no-adapter]
    #[arg(long, conflicts_with = "from")]
    pub pixel_decoder_layers: Option<usize>,
    /// Steps of the optimizer [default: 5000 from scratch, 400 from a checkpoint]; 0 writes the random weights
    #[arg(long)]
    pub steps: Option<u64>,
    /// Images of a step; of --video: windows of --frames pictures [default: 16, of --video 4]
    #[arg(long)]
    pub batch: Option<usize>,
    /// Of the weights, the order and every other random choice; the same seed gives the same weights
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Peak learning rate of queries and heads [default: 5e-4 from scratch, 1e-4 from a checkpoint]
    #[arg(long, value_name = "RATE", value_parser = positive)]
    pub lr: Option<f64>,
    /// Every block of the encoder learns slower than the next one by this factor [default: 1 from scratch, 0.8 from a checkpoint]
    #[arg(long, value_name = "FACTOR", value_parser = probability)]
    pub layer_decay: Option<f64>,
    /// Steps of warm-up: of queries and heads while the encoder rests, then of the encoder [default: 100,0 or 50,50]
    #[arg(long, value_name = "HEADS,ENCODER", value_parser = steps)]
    pub warmup: Option<[u64; 2]>,
    /// AdamW's weight decay, of matrices
    #[arg(long, default_value_t = 0.05, value_parser = probability)]
    pub weight_decay: f64,
    /// Largest norm of the gradient
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub clip: f64,
    /// Masked attention in training [default: never for a checkpoint that needs no masks, else annealed]
    #[arg(long, value_enum)]
    pub masking: Option<MaskingArg>,
    /// Mask annealing: per block with queries, the step until which it always masks and the step from which it never does, as
    /// 100-200,200-300,300-400 [default: equal stretches of the run, one block after the other]
    #[arg(long, value_name = "START-END,..", value_parser = spans)]
    pub anneal: Option<Spans>,
    /// Exponent of the fall between those steps
    #[arg(long, default_value_t = 0.9, value_name = "POWER", value_parser = positive, requires = "anneal")]
    pub anneal_power: f64,
    /// Points per mask at which the loss compares
    #[arg(long, default_value_t = 1024)]
    pub points: usize,
    /// Range of the random scale; 1 fills the input
    #[arg(long, default_value = "0.8,1.25", value_name = "LOW,HIGH", value_parser = pair)]
    pub scale: [f64; 2],
    /// Strength of random brightness, contrast and saturation, 0 to 1
    #[arg(long, default_value_t = 0.2, value_parser = probability)]
    pub colour: f64,
    /// Probability of each of blur, noise and darkness
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    pub degrade: f64,
    /// Never mirror pictures
    #[arg(long)]
    pub no_flip: bool,
    /// Input size in pixels, square; of a checkpoint, positions are resampled [default: 160 from scratch, the checkpoint's]
    #[arg(long)]
    pub size: Option<usize>,
    /// Width of a token, D (from scratch)
    #[arg(long, default_value_t = 192, conflicts_with = "from")]
    pub width: usize,
    /// Transformer blocks (from scratch)
    #[arg(long, default_value_t = 6, conflicts_with = "from")]
    pub blocks: usize,
    /// Blocks at the end in which the queries take part, L2 (from scratch and --architecture eomt, or of a backbone) [default: 3; 4 of a backbone of 24
    /// blocks, 5 of a larger one]
    #[arg(long)]
    pub query_blocks: Option<usize>,
    /// Attention heads (from scratch)
    #[arg(long, default_value_t = 3, conflicts_with = "from")]
    pub heads: usize,
    /// Queries, Q (from scratch, or of a backbone) [default: 24 from scratch, 200 of a backbone]
    #[arg(long)]
    pub queries: Option<usize>,
    /// Pixels of a patch, square; a checkpoint's embedding is resized, and gets or loses ScaleBlocks [default: 16 from scratch, the checkpoint's]
    #[arg(long)]
    pub patch: Option<usize>,
    /// Of every N pictures keep the last one away (of --scenes: N others), score the network on those after each state (PQ; mIoU of class maps), and keep the
    /// best checkpoint in best/
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub validate: Option<u32>,
    /// Steps between two states on disk, each with its checkpoint
    #[arg(long, default_value_t = 100)]
    pub save_every: u64,
    /// Threads, 0 for all cores
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=THREADS_MAX as i64))]
    pub threads: u16,
}
