//! The calibration set: for every linear layer, rows of the input that it saw.
//!
//! [`super::calibrate`] fills it. [`super::mean_removal`] and [`super::smoothquant`] change it together with the weights, so that it
//! always holds what the changed network sees. [`super::selection`] fits weights to seven eighths of the rows and measures with the rest.

use std::collections::{BTreeMap, BTreeSet};

use super::fold::inverse;

/// One row in this many is held out to measure with. Weights are fitted to the others.
const HELD_OUT: usize = 8;

/// Rows of one layer's input.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Samples {
    /// Input channels.
    pub columns: usize,
    /// `[rows, columns]`
    pub values: Vec<f32>,
}

impl Samples {
    /// The rows to measure with.
    pub fn held_out(&self) -> Vec<f32> {
        self.rows(|index| index % HELD_OUT == 0)
    }

    /// The rows to fit weights to.
    pub fn to_fit(&self) -> Vec<f32> {
        self.rows(|index| index % HELD_OUT != 0)
    }

    fn rows(&self, wanted: impl Fn(usize) -> bool) -> Vec<f32> {
        let rows = self.values.chunks_exact(self.columns).enumerate().filter(|(index, _)| wanted(*index));
        rows.flat_map(|(_, row)| row.iter().copied()).collect()
    }
}

/// Inputs by the name of the layer. Layers that see the same input share its rows.
#[derive(Debug, Default)]
pub(super) struct Calibration {
    inputs: Vec<Samples>,
    input_of: BTreeMap<String, usize>,
}

impl Calibration {
    /// An empty set for layers that see the named inputs, and the distinct lists of inputs in the order of [`Calibration::inputs_mut`].
    /// Layers with the same list share their rows.
    pub fn of_inputs<Input: PartialEq>(layers: BTreeMap<String, Vec<Input>>) -> (Calibration, Vec<Vec<Input>>) {
        let (mut calibration, mut distinct) = (Calibration::default(), Vec::new());
        for (layer, inputs) in layers {
            let known = distinct.iter().position(|known| *known == inputs);
            calibration.input_of.insert(layer, known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(inputs);
                calibration.inputs.push(Samples::default());
            }
        }
        (calibration, distinct)
    }

    /// The distinct inputs, to be filled.
    pub fn inputs_mut(&mut self) -> &mut [Samples] {
        &mut self.inputs
    }

    /// The rows that `layer` sees.
    pub fn get(&self, layer: &str) -> Option<&Samples> {
        self.inputs.get(*self.input_of.get(layer)?)
    }

    /// The first layer that sees a value that is not finite.
    pub fn not_finite(&self) -> Option<&str> {
        let is_finite = |input: usize| self.inputs[input].values.iter().all(|value| value.is_finite());
        self.input_of.iter().find(|(_, input)| !is_finite(**input)).map(|(layer, _)| layer.as_str())
    }

    /// Whether both layers are known to see the same input.
    pub fn same_input(&self, a: &str, b: &str) -> bool {
        self.input_of.get(a).is_some_and(|input| self.input_of.get(b) == Some(input))
    }

    /// Divides the inputs of `layers` by `factors`, one per channel.
    pub fn divide(&mut self, layers: &[&str], factors: &[f32]) {
        self.each_of(layers, |samples| samples.values = divided(&samples.values, factors));
    }

    /// Subtracts `mean`, one value per channel, from the inputs of `layers`.
    pub fn subtract(&mut self, layers: &[&str], mean: &[f32]) {
        self.each_of(layers, |samples| samples.values.chunks_exact_mut(mean.len()).for_each(|row| subtract(row, mean)));
    }

    fn each_of(&mut self, layers: &[&str], change: impl Fn(&mut Samples)) {
        let inputs: BTreeSet<usize> = layers.iter().filter_map(|layer| self.input_of.get(*layer).copied()).collect();
        inputs.into_iter().for_each(|input| change(&mut self.inputs[input]));
    }
}

/// Rows of `x`, each column divided by its factor.
pub(super) fn divided(x: &[f32], factors: &[f32]) -> Vec<f32> {
    let inverse = inverse(factors);
    x.chunks_exact(factors.len()).flat_map(|row| row.iter().zip(&inverse).map(|(value, factor)| value * factor)).collect()
}

/// `from - mean`, in place.
pub(super) fn subtract(from: &mut [f32], mean: &[f32]) {
    from.iter_mut().zip(mean).for_each(|(value, mean)| *value -= mean);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_input_changes_once() {
        let layers = [("q", vec![1]), ("k", vec![1]), ("class", vec![2]), ("masks", vec![0, 2])];
        let (mut calibration, distinct) = Calibration::of_inputs(layers.map(|(layer, inputs)| (layer.to_owned(), inputs)).into());
        assert_eq!(distinct.len(), 3);
        for samples in &mut calibration.inputs {
            *samples = Samples { columns: 2, values: vec![4.0, 6.0, 8.0, 2.0] };
        }
        calibration.subtract(&["q", "k", "unknown"], &[1.0, 2.0]);
        calibration.divide(&["class", "masks"], &[2.0, 0.5]);
        let values = |layer: &str| calibration.get(layer).expect("known").values.clone();
        assert_eq!((values("q"), values("k")), (vec![3.0, 4.0, 7.0, 0.0], vec![3.0, 4.0, 7.0, 0.0]));
        assert_eq!((values("class"), values("masks")), (vec![2.0, 12.0, 4.0, 4.0], vec![2.0, 12.0, 4.0, 4.0]));
        assert!(calibration.same_input("q", "k"));
        assert!(!calibration.same_input("class", "masks") && !calibration.same_input("unknown", "unknown"));
    }
}
