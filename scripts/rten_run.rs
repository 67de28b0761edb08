//! Runs an ONNX file in rten: `rten-run MODEL INPUT HEIGHT WIDTH OUTPUT`.
//!
//! INPUT holds the f32 values of `[1, 3, HEIGHT, WIDTH]`, OUTPUT gets those of all outputs, one after the other, all little-endian.
//! `scripts/engines-check.sh` builds it outside of this workspace, so that no dependency of it is one of ours.

use rten::Model;
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, input, height, width, output] = &arguments[..] else { return Err("usage: rten-run MODEL INPUT HEIGHT WIDTH OUTPUT".into()) };
    let model = Model::load_file(model)?;
    let bytes = std::fs::read(input)?;
    let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<f32>>();
    let pixels = NdTensor::from_data([1, 3, height.parse()?, width.parse()?], values);
    let mut bytes = Vec::new();
    for value in model.run(vec![(model.input_ids()[0], pixels.view().into())], model.output_ids(), None)? {
        let tensor: Tensor<f32> = value.try_into()?;
        bytes.extend(tensor.iter().flat_map(|value| value.to_le_bytes()));
    }
    std::fs::write(output, bytes)?;
    Ok(())
}
