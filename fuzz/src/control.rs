//! Lines that a client of the control socket sends.

use std::path::{Component, Path};

use eomt_edge::control::Request;
use eomt_edge_core::data::Thresholds;

use super::assert_sentence;

pub(crate) fn run(input: &[u8]) {
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        match Request::parse(line) {
            Err(sentence) => assert_sentence(&sentence),
            Ok(Request::Thresholds { set }) => {
                let Thresholds { score, mask, overlap } = set.onto(Thresholds::default());
                assert!([score, mask, overlap].iter().all(|value| (0.0..=1.0).contains(value)), "{set:?}");
            }
            Ok(Request::Model { name }) => {
                let parts: Vec<Component<'_>> = Path::new(&name).components().collect();
                assert!(matches!(parts[..], [Component::Normal(only)] if only == name.as_str()) && name.ends_with(".onnx"), "{name:?}");
            }
            Ok(Request::Status {} | Request::Log { .. } | Request::Reload {}) => {}
        }
    }
}
