//! Checkpoints: PyTorch's zip files, the pickles in them, safetensors, and the JSON files beside them.
//!
//! The reader takes paths, so the input becomes files in memory. What it reads is one of the folders that `convert` takes.

use std::io::{Cursor, Write};
use std::path::Path;

use eomt_edge_tools::checkpoint::{Checkpoint, Options, read};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::assert_sentence;
use super::input::parts;
use super::scratch::Scratch;

/// A `.bin` file as it is.
pub(crate) fn torch_zip(input: &[u8]) {
    let scratch = Scratch::new();
    check(&scratch.file("pytorch_model.bin", input), Some(&scratch.file("hints.json", HINTS)));
}

/// What weights do not tell, of the network that the first inputs hold.
const HINTS: &[u8] = br#"{"num_attention_heads": 1, "image_size": 64}"#;

/// The `data.pkl` of a `.bin` file that is otherwise in order, and whose storages hold zeros.
pub(crate) fn pickle(input: &[u8]) {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let storages = (0..4).map(|key| (format!("archive/data/{key}"), &[0; 256][..]));
    for (name, bytes) in [("archive/data.pkl".to_owned(), input)].into_iter().chain(storages) {
        zip.start_file(name, stored).expect("a new member");
        zip.write_all(bytes).expect("in memory");
    }
    let scratch = Scratch::new();
    let path = scratch.file("pytorch_model.bin", zip.finish().expect("in memory").get_ref());
    check(&path, Some(&scratch.file("hints.json", HINTS)));
}

/// `model.safetensors`, and beside it `config.json` when the input has one in front of a line `%%`.
pub(crate) fn safetensors(input: &[u8]) {
    let scratch = Scratch::new();
    let mut parts = parts(input);
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let weights = scratch.file("model.safetensors", second.unwrap_or(first));
    if second.is_some() {
        scratch.file("config.json", first);
        check(scratch.folder(), None);
    } else {
        check(&weights, None);
    }
}

/// In this order: `config.json`, hints, an index of shards, a processor's configuration; the weights are a small network's.
pub(crate) fn json(input: &[u8]) {
    const WEIGHTS: &[u8] = include_bytes!("../corpus/weights.safetensors");
    let scratch = Scratch::new();
    let mut parts = parts(input);
    scratch.file("config.json", parts.next().unwrap_or_default());
    scratch.file("model.safetensors", WEIGHTS);
    let hints = parts.next().filter(|hints| !hints.is_empty()).map(|hints| scratch.file("hints.json", hints));
    let index = parts.next().filter(|index| !index.is_empty()).map(|index| scratch.file("model.safetensors.index.json", index));
    if let Some(processor) = parts.next() {
        scratch.file("preprocessor_config.json", processor);
    }
    check(scratch.folder(), hints.as_deref());
    if let Some(index) = index {
        check(&index, hints.as_deref());
    }
}

fn check(path: &Path, hints: Option<&Path>) {
    let options = Options { hints: hints.and_then(Path::to_str), base: None };
    match read(path, &options) {
        Ok(checkpoint) => check_network(&checkpoint),
        Err(error) => assert_sentence(&error.to_string()),
    }
}

/// What the conversion relies on.
fn check_network(checkpoint: &Checkpoint) {
    checkpoint.warnings.iter().for_each(|warning| assert_sentence(warning));
    let network = &checkpoint.network;
    let ([height, width], classes) = (network.image_size, checkpoint.labels.len());
    assert!(height > 0 && width > 0 && classes > 0);
    assert!(checkpoint.stuff_classes.iter().flatten().all(|class| *class < classes), "stuff among the {classes} classes");
    assert!(checkpoint.image_std.iter().chain(&checkpoint.image_mean).all(|value| value.is_finite()));
}
