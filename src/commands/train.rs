//! `train`: arguments to options.

use std::os::unix::process::CommandExt;

use eomt_edge::cli::{ArchitectureArg, MaskingArg, TrainArgs};
use eomt_edge_host::output::usage;
use eomt_edge_train::{
    Activation, Annealing, Architecture, Augmentation, ChainSizes, Heads, LossOptions, Masking, Pictures, Positions, RateOptions, Sizes,
    Start, TrainOptions, train,
};

use super::dataset::{self, refuse_stray};

/// Queries of a network that starts from random weights.
const SCRATCH_QUERIES: usize = 24;

/// Training gives each of its threads a part of the batch. candle would start more threads for every operator, which mostly wait for each
/// other, and reads their number from the environment only. So the program starts itself again with it.
fn one_thread_per_operator() -> anyhow::Result<()> {
    const KEY: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(KEY).is_some() {
        return Ok(());
    }
    let failed = std::process::Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(KEY, "1").exec();
    Err(anyhow::Error::new(failed).context("the program cannot start itself again for training"))
}

pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    refuse_stray(args.dataset.stray())?;
    if args.frames.is_some() && args.video.is_none() {
        return usage("--frames goes with --video only, whose clips it cuts");
    }
    one_thread_per_operator()?;
    let start = start(&args)?;
    let images = args.dataset.images.clone();
    let pictures = match (args.scenes, args.video, dataset::format(args.dataset, None, "train")?) {
        (None, None, Some(dataset)) => Pictures::Annotated { images, dataset },
        (None, Some(directory), _) => Pictures::Clips { directory, frames: args.frames.unwrap_or(5) },
        (seed, ..) => Pictures::Scenes { seed: seed.unwrap_or_default() },
    };
    let defaults = TrainOptions::new(args.output, start, pictures);
    train(&TrainOptions {
        steps: args.steps.unwrap_or(defaults.steps),
        batch: args.batch.unwrap_or(defaults.batch),
        seed: args.seed,
        rates: RateOptions {
            rate: args.lr.unwrap_or(defaults.rates.rate),
            warmup: args.warmup.unwrap_or(defaults.rates.warmup),
            layer_decay: args.layer_decay.unwrap_or(defaults.rates.layer_decay),
            ..defaults.rates
        },
        weight_decay: args.weight_decay,
        clip: args.clip,
        exif: args.exif,
        masking: args.masking.map(|masking| match masking {
            MaskingArg::Annealed => Masking::Annealed,
            MaskingArg::Kept => Masking::Kept,
            MaskingArg::Never => Masking::Never,
        }),
        annealing: args.anneal.map(|spans| Annealing { spans: spans.0, power: args.anneal_power }),
        loss: LossOptions { points: args.points, ..LossOptions::default() },
        augmentation: Augmentation { flip: !args.no_flip, scale: args.scale, colour: args.colour, degrade: args.degrade },
        save_every: args.save_every,
        validate: args.validate.map(|count| count as usize),
        threads: usize::from(args.threads),
        ..defaults
    })
}

fn start(args: &TrainArgs) -> anyhow::Result<Start> {
    if let Some(path) = &args.from {
        let heads = Heads { queries: args.queries, query_blocks: args.query_blocks };
        return Ok(Start::Checkpoint { path: path.clone(), patch: args.patch, image: args.size, heads });
    }
    let architecture = match args.architecture {
        ArchitectureArg::VitAdapterM2f => Architecture::VitAdapterM2f,
        ArchitectureArg::NoAdapter => Architecture::NoAdapter,
        ArchitectureArg::NoPixelDecoder => Architecture::NoPixelDecoder,
        ArchitectureArg::NoMultiScale => Architecture::NoMultiScale,
        ArchitectureArg::Eomt => return eomt(args),
    };
    chain(args, architecture)
}

fn eomt(args: &TrainArgs) -> anyhow::Result<Start> {
    let decoders = [
        ("--decoder-width", args.decoder_width),
        ("--decoder-layers", args.decoder_layers),
        ("--pixel-decoder-layers", args.pixel_decoder_layers),
    ];
    if let Some((name, _)) = decoders.into_iter().find(|(_, value)| value.is_some()) {
        return usage(format!("{name}: EoMT has no decoder; it goes with another --architecture"));
    }
    let patch = args.patch.unwrap_or(16);
    Ok(Start::Scratch(Sizes {
        hidden: args.width,
        heads: args.heads,
        blocks: args.blocks,
        query_blocks: args.query_blocks.unwrap_or(3),
        queries: args.queries.unwrap_or(SCRATCH_QUERIES),
        classes: 0, // of the data
        registers: 4,
        patch,
        image: args.size.unwrap_or(160),
        inner: 4 * args.width,
        gated: false,
        activation: Activation::Gelu,
        positions: Positions::Learned,
        scale_blocks: patch.max(1).ilog2().saturating_sub(2) as usize,
        eps: 1e-6,
        video: false,
        chain: None,
    }))
}

fn chain(args: &TrainArgs, architecture: Architecture) -> anyhow::Result<Start> {
    let name = architecture.name();
    if args.query_blocks.is_some() {
        return usage(format!("--query-blocks: the queries of {name} take part in its decoder only"));
    }
    if let Some(patch) = args.patch.filter(|patch| *patch != 16) {
        return usage(format!("--patch {patch}: the patches of {name} have 16 pixels"));
    }
    let has_pixel_decoder = matches!(architecture, Architecture::VitAdapterM2f | Architecture::NoAdapter);
    if args.pixel_decoder_layers.is_some() && !has_pixel_decoder {
        return usage(format!("--pixel-decoder-layers: {name} has no pixel decoder"));
    }
    let papers = ChainSizes::of_vit(architecture, args.width, args.heads, args.blocks);
    let width = args.decoder_width.unwrap_or(papers.decoder_width);
    Ok(Start::Scratch(Sizes::of_chain(ChainSizes {
        image: args.size.unwrap_or(160),
        queries: args.queries.unwrap_or(SCRATCH_QUERIES),
        decoder_width: width,
        decoder_inner: width.saturating_mul(8),
        pixel_decoder_inner: width.saturating_mul(4),
        decoder_layers: args.decoder_layers.unwrap_or(papers.decoder_layers),
        pixel_decoder_layers: args.pixel_decoder_layers.unwrap_or(papers.pixel_decoder_layers),
        ..papers
    })))
}
