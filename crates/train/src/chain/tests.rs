//! Against the numbers of `tests/data/chain/make_chain.py`: transformers' decoders, and the encoder, adapter and pyramid in plain PyTorch.

use std::path::{Path, PathBuf};

use eomt_edge_tools::chain::Architecture;
use eomt_edge_tools::checkpoint::{Chain, read_chain};
use safetensors::SafeTensors;

use super::*;

fn folder(architecture: Architecture) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/chain").join(architecture.name())
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// `[3, side, side]` as `[1, N, 3 P P]`.
fn patches(pixels: &[f32], side: usize) -> Tensor {
    let (grid, tensor) = (side / PATCH, Tensor::from_slice(pixels, (1, 3, side, side), &Device::Cpu).unwrap());
    let cut = tensor.reshape(&[1, 3, grid, PATCH, grid, PATCH][..]).unwrap().permute(&[0, 2, 4, 1, 3, 5][..]).unwrap();
    cut.contiguous().unwrap().reshape((1, grid * grid, 3 * PATCH * PATCH)).unwrap()
}

fn close(ours: &Tensor, theirs: &[f32], what: &str) {
    let ours: Vec<f32> = ours.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let apart = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    let largest = theirs.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    assert!(apart < 1e-4 * largest, "{what}: {apart} apart of {largest}"); // f32 sums in another order
}

fn load(architecture: Architecture) -> (Chain, Parameters) {
    let chain = read_chain(&folder(architecture)).unwrap();
    let parameters = Parameters::new(chain.weights.clone()).unwrap();
    (chain, parameters)
}

/// All predictions, of an image alone and beside another one.
#[test]
fn forward_is_that_of_the_references() {
    for architecture in Architecture::ALL {
        let (chain, parameters) = load(architecture);
        let bytes = std::fs::read(folder(architecture).join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let input = patches(&floats(&file, "pixel_values"), chain.sizes.image);
        let both = Tensor::cat(&[&(&input * -0.5).unwrap(), &input], 0).unwrap();
        let name = architecture.name();
        for (input, image) in [(&input, 0), (&both, 1)] {
            let predictions = forward(&chain.sizes, &parameters, input).unwrap();
            assert_eq!(predictions.len(), chain.sizes.decoder_layers + 1);
            let (last, before) = predictions.split_last().unwrap();
            let of = |tensor: &Tensor| tensor.narrow(0, image, 1).unwrap();
            close(&of(&last.classes), &floats(&file, "class_queries_logits"), &format!("{name}: classes"));
            close(&of(&last.masks), &floats(&file, "masks_queries_logits"), &format!("{name}: masks"));
            close(&of(&before[0].masks), &floats(&file, "first_mask_logits"), &format!("{name}: first masks"));
            let classes: Vec<Tensor> = before.iter().map(|prediction| of(&prediction.classes)).collect();
            close(&Tensor::cat(&classes, 0).unwrap(), &floats(&file, "intermediate_class_logits"), &format!("{name}: classes before"));
        }
    }
}

/// Every weight but the statistics of batch norms gets a gradient, which is the slope along itself.
#[test]
fn gradients_reach_all_weights() {
    for architecture in Architecture::ALL {
        let (chain, parameters) = load(architecture);
        let side = chain.sizes.image;
        let pixels: Vec<f32> = (0..3 * side * side).map(|at| (0.37 * at as f32).sin()).collect();
        let input = patches(&pixels, side);
        let predictions = forward(&chain.sizes, &parameters, &input).unwrap();
        let mut total = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu).unwrap();
        for prediction in &predictions {
            let squares = |tensor: &Tensor| tensor.sqr().unwrap().mean_all().unwrap();
            total = ((total + squares(&prediction.classes)).unwrap() + squares(&prediction.masks)).unwrap();
        }
        let gradients = total.backward().unwrap();
        for (name, var) in parameters.iter() {
            let recorded = name.ends_with("running_mean") || name.ends_with("running_var");
            let most = gradients.get(var).map(|gradient| {
                let values: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
                values.iter().fold(0.0f32, |most, value| most.max(value.abs()))
            });
            assert_eq!(most.is_some_and(|most| most > 0.0 && most.is_finite()), !recorded, "{}: {name}", architecture.name());
        }
    }
}
