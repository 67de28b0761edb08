//! AdamW (Loshchilov and Hutter 2019) with a rate per weight, and gradient clipping. The framework's own has one rate for all
//! weights and does not give its moments out, which a resumed run needs.

use candle_core::{Device, Result, Tensor};

use super::parameters::Parameters;
use super::rows::{self, ISA};
use super::workspace::Buffer;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// First and second moments, `[weights][values]` in the order of [`Parameters::iter`].
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Moments {
    pub first: Vec<Vec<f32>>,
    pub second: Vec<Vec<f32>>,
}

impl Moments {
    pub(super) fn new(parameters: &Parameters) -> Moments {
        let zeros: Vec<Vec<f32>> = parameters.iter().map(|(_, var)| vec![0.0; var.elem_count()]).collect();
        Moments { first: zeros.clone(), second: zeros }
    }
}

/// Scales gradients down to the joint norm `limit` and returns the norm before. Sums in f64, weight by weight.
pub(super) fn clip(gradients: &mut [Buffer], limit: f64) -> f64 {
    let squares: f64 = gradients.iter().map(|gradient| squares(gradient)).sum();
    let norm = squares.sqrt();
    if norm > limit {
        let factor = (limit / norm) as f32;
        gradients.iter_mut().for_each(|gradient| rows::scale(gradient, factor));
    }
    norm
}

/// The sum of squares, in eight lanes.
fn squares(values: &[f32]) -> f64 {
    ISA.vectorize(
        #[inline(always)]
        || {
            let (chunks, rest) = values.as_chunks::<8>();
            let mut lanes = [0.0f64; 8];
            for chunk in chunks {
                for lane in 0..8 {
                    lanes[lane] += f64::from(chunk[lane]) * f64::from(chunk[lane]);
                }
            }
            lanes.iter().sum::<f64>() + rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>()
        },
    )
}

/// One step, numbered from 0. `rates` are by weight; matrices decay by `weight_decay`, vectors (biases, norms, LayerScale) do not.
pub(super) fn update(
    parameters: &Parameters,
    gradients: &[Buffer],
    moments: &mut Moments,
    step: u64,
    rates: &[f64],
    weight_decay: f64,
) -> Result<()> {
    let count = step as i32 + 1;
    let (correction1, correction2) = (1.0 - BETA1.powi(count), 1.0 - BETA2.powi(count));
    for (place, (_, var)) in parameters.iter().enumerate() {
        let rate = rates[place];
        let decay = if var.rank() >= 2 { (1.0 - rate * weight_decay) as f32 } else { 1.0 };
        let (length, root) = ((rate / correction1) as f32, correction2.sqrt() as f32);
        let mut values = var.flatten_all()?.to_vec1::<f32>()?;
        let (firsts, seconds) = (&mut moments.first[place], &mut moments.second[place]);
        ISA.vectorize(
            #[inline(always)]
            || {
                for (((value, first), second), slope) in values.iter_mut().zip(firsts).zip(seconds).zip(gradients[place].iter()) {
                    *first = BETA1 as f32 * *first + (1.0 - BETA1) as f32 * slope;
                    *second = BETA2 as f32 * *second + (1.0 - BETA2) as f32 * slope * slope;
                    *value = *value * decay - length * *first / (second.sqrt() / root + EPSILON as f32);
                }
            },
        );
        var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?;
    }
    Ok(())
}
