//! Bounds on what is read, in one place: whoever supplies a file must not decide how much memory or time the program takes.
//!
//! A file is refused by its size before any of it is read, and no more than its bound is read whatever its size says
//! ([`super::files`]). Files of more than [`CHECKED_BYTES_MIN`] must also fit into the memory that is free, and may not be mostly holes.
//!
//! Bounds of other kinds stand with what they protect: sizes and products of a network in `eomt_edge_core::model`, frames in
//! `source.max_pixels`, the bytes of the ring against the machine's memory in `sink::ring`, what a client believes in
//! `eomt_edge_client`.

/// How many bytes a kind of file may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileBound {
    /// What the file is, with its article: `a model file`.
    pub kind: &'static str,
    /// The most bytes.
    pub bytes: u64,
}

const fn bound(kind: &'static str, bytes: u64) -> FileBound {
    FileBound { kind, bytes }
}

/// protobuf has no larger messages; larger networks keep their weights in a second file.
pub const MODEL: FileBound = bound("a model file", (1 << 31) - 1);
/// A part of such a second file, or a tensor: the largest of ViT-g has 50 MB, and 7B networks are refused anyway.
pub const WEIGHTS: FileBound = bound("a part of a file of weights", 4 << 30);
/// 7 billion parameters in f32, the largest published EoMT. Only its header and single tensors are held in memory.
pub const CHECKPOINT: FileBound = bound("a checkpoint", 32 << 30);
/// Configurations of transformers, hints, indices of shards: the largest known has 1.5 MB. Parsed JSON takes up to 32 times as much.
pub const JSON: FileBound = bound("a JSON configuration", 4 << 20);
/// COCO's largest list of annotations has 450 MB; larger sets are split.
pub const ANNOTATIONS: FileBound = bound("a list of annotations", 4 << 30);
/// The daemon's own file: a hundred keys.
pub const CONFIGURATION: FileBound = bound("a configuration", 1 << 20);
/// Lists of names, `data.yaml`, one picture's polygons: a million corners are 16 MB.
pub const TEXT: FileBound = bound("a text file", 16 << 20);
/// 64 million pixels of 16-bit RGBA without compression.
pub const PICTURE: FileBound = bound("a picture", 520 << 20);
/// Inputs and outputs of single stages, and the state of a training run: 300 million parameters with two moments each.
pub const TENSORS: FileBound = bound("a file of tensors", 8 << 30);
/// Files of `/proc` and `/sys`, and single lines such as a serial number.
pub const SYSTEM: FileBound = bound("a file of the system", 1 << 20);

/// From this size on a file is compared with the memory that is free, and looked through for holes: below it neither matters.
pub const CHECKED_BYTES_MIN: u64 = 16 << 20;

/// Pictures of one folder that a source plays or a command reads: the largest public sets have 330,000.
pub const PICTURES_MAX: usize = 1_000_000;

/// The header of a safetensors file, bytes: that of a network with 10,000 tensors has 1 MB.
pub const TENSOR_HEADER_BYTES_MAX: u64 = 16 << 20;
/// Tensors of a file: ViT-g with its optimizer has 2,000.
pub const TENSORS_MAX: usize = 100_000;
/// A tensor's name, bytes: the longest known has 120.
pub const NAME_BYTES_MAX: usize = 1024;
/// Files of a sharded checkpoint: shards have 2 GB or more.
pub const SHARDS_MAX: usize = 1000;
/// The list of a zip file's members, bytes; torch.save writes a member of about 120 bytes for each storage.
pub const ARCHIVE_LIST_BYTES_MAX: u64 = 16 << 20;
/// The pickle of a checkpoint, bytes: real ones have some hundred kilobytes.
pub const PICKLE_BYTES_MAX: u64 = 16 << 20;
/// Operations of a pickle, ten times what a giant with its optimizer takes; each takes at most 200 bytes of memory.
pub const PICKLE_STEPS_MAX: usize = 1_000_000;
/// Dictionaries of a pickle among which the weights are searched; LightlyTrain's checkpoints have 60.
pub const PICKLE_DICTIONARIES_MAX: usize = 10_000;
/// Text that is kept of the entries beside a checkpoint's weights, bytes. A pickle can name one text any number of times.
pub const PICKLE_TEXT_BYTES_MAX: usize = 4 << 20;
/// Levels of brackets in a YAML file; those of `data.yaml` are two.
pub const YAML_DEPTH_MAX: usize = 32;
