//! A model file, with `config.json` and a processor's file beside it when the input has them behind lines `%%`.
//!
//! What is no protocol buffer with a graph is refused before the inference engine sees it, so that is done here; all else goes on in a
//! [child](super::child), which loads the file as the daemon does and computes one frame.

use eomt_edge_core::data::{Logits, Tensor};
use eomt_edge_host::model_file::{Compute, load};
use prost::Message;
use tract_onnx::pb::ModelProto;

use super::assert_sentence;
use super::child::contained;
use super::input::parts;
use super::scratch::Scratch;

/// Of an export by others, for inputs that bring none.
const CONFIG: &[u8] = br#"{"model_type": "eomt", "num_channels": 3, "id2label": {"0": "road", "1": "person", "2": "sky"}}"#;

pub(crate) fn run(input: &[u8]) {
    let mut parts = parts(input);
    let onnx = parts.next().unwrap_or_default();
    let scratch = Scratch::new();
    let path = scratch.file("model.onnx", onnx);
    scratch.file("config.json", parts.next().unwrap_or(CONFIG));
    if let Some(processor) = parts.next() {
        scratch.file("preprocessor_config.json", processor);
    }
    let job = || {
        let mut model = match load(&path, &Compute::threads(1)) {
            Ok(model) => model,
            Err(error) => return assert_sentence(&error.to_string()),
        };
        let (height, width) = model.metadata().input_size;
        let mut logits = Logits::default();
        match model.run(&Tensor::zeros(height, width), |class, kept| kept.extend(0..class.queries), &mut logits) {
            Ok(_) => assert_eq!(logits.masks.len() % logits.class.queries.max(1), 0),
            Err(error) => assert_sentence(&error.to_string()),
        }
    };
    match ModelProto::decode(onnx) {
        Ok(proto) if proto.graph.is_some() => contained(job),
        _ => job(),
    }
}
