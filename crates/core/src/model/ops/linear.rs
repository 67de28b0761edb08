//! Linear layers with what surrounds them.

use std::sync::Arc;

use tract_onnx::prelude::{Tensor, TractResult};
use tract_onnx::tract_core::internal::*;

use super::engine::with_scratch;
use super::{Engine, Kernel, Memory};
use crate::kernels::activation::Activation;
use crate::kernels::linear::{FusedMlp, Linear, Norm, Weights};
use crate::kernels::packed::{PackedF32, PackedI8};

/// A weight matrix as the file has it.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// f32, or i8 with one scale per column.
    pub values: Arc<Tensor>,
    /// `[n, k]` instead of `[k, n]`.
    pub transposed: bool,
    /// Of i8 values, one per column.
    pub scales: Option<Arc<Vec<f32>>>,
}

/// Some columns of a layer.
#[derive(Debug, Clone)]
pub struct Columns {
    pub matrix: Matrix,
    pub bias: Option<Arc<Vec<f32>>>,
}

/// One layer: its columns come from one or several matrices side by side.
#[derive(Debug, Clone)]
pub struct LayerSpec {
    pub columns: Vec<Columns>,
    pub activation: Activation,
    /// See [`Linear::new`].
    pub gated: bool,
}

/// Layers one after the other on the rows `start .. start + rows` of the input.
#[derive(Debug, Clone)]
pub struct LinearSpec {
    pub norm: Option<Arc<Norm>>,
    pub layers: Vec<LayerSpec>,
    pub start: usize,
    /// `None`: all rows.
    pub rows: Option<usize>,
    /// The second input is added to the output.
    pub residual: bool,
}

impl Matrix {
    /// Values along k.
    pub fn k(&self) -> usize {
        self.values.shape()[usize::from(self.transposed)]
    }

    pub fn n(&self) -> usize {
        self.values.shape()[usize::from(!self.transposed)]
    }

    /// Element (i, c) lies at `i * step.0 + c * step.1`.
    fn steps(&self) -> (usize, usize) {
        if self.transposed { (1, self.k()) } else { (self.n(), 1) }
    }

    pub fn is_int8(&self) -> bool {
        self.scales.is_some()
    }
}

impl Columns {
    /// Column c and its bias times `factors[c]`; `None` when the matrix is not numbers in memory.
    pub fn scaled(&self, factors: &[f32]) -> Option<Columns> {
        let times = |values: &[f32]| values.iter().zip(factors).map(|(value, factor)| value * factor).collect::<Vec<f32>>();
        let mut matrix = self.matrix.clone();
        match &self.matrix.scales {
            Some(scales) => matrix.scales = Some(Arc::new(times(scales))),
            None => {
                let mut values = matrix.values.as_ref().clone();
                let (k, n) = (matrix.k(), matrix.n());
                let mut plain = values.try_as_plain_ram_mut().ok()?;
                for (index, value) in plain.as_slice_mut::<f32>().ok()?.iter_mut().enumerate() {
                    *value *= factors[if matrix.transposed { index / k } else { index % n }];
                }
                matrix.values = Arc::new(values);
            }
        }
        Some(Columns { matrix, bias: self.bias.as_ref().map(|bias| Arc::new(times(bias))) })
    }
}

impl LayerSpec {
    pub fn is_int8(&self) -> bool {
        self.columns.iter().all(|columns| columns.matrix.is_int8())
    }

    /// Packs all columns side by side; `expanded`: int8 ones as [`Weights::Expanded`].
    pub fn pack(&self, engine: &Engine, expanded: bool) -> TractResult<Linear> {
        let k = self.columns[0].matrix.k();
        let n = self.columns.iter().map(|columns| columns.matrix.n()).sum();
        ensure!(self.columns.iter().all(|columns| columns.matrix.k() == k), "matrices side by side have one k");
        let mut bias = Vec::with_capacity(n);
        for columns in &self.columns {
            match &columns.bias {
                Some(values) => bias.extend_from_slice(values),
                None => bias.resize(bias.len() + columns.matrix.n(), 0.0),
            }
        }
        ensure!(bias.len() == n, "one bias per column");
        let weights = match (self.is_int8(), expanded) {
            (true, true) => Weights::Expanded(self.pack_int8(engine, k, n)?),
            (true, false) => Weights::Int8(self.pack_int8(engine, k, n)?),
            (false, _) => self.pack_floats(engine, k, n)?,
        };
        Ok(Linear::new(weights, bias, self.activation, self.gated))
    }

    fn pack_int8(&self, engine: &Engine, k: usize, n: usize) -> TractResult<PackedI8> {
        let mut panels = PackedI8::zeros(engine.isa, k, n);
        let mut column = vec![0i8; k];
        let mut at = 0;
        for Columns { matrix, .. } in &self.columns {
            let values = matrix.values.try_as_plain_ram()?.as_slice::<i8>()?;
            let scales = matrix.scales.as_ref().context("int8 columns have scales")?;
            let (along_k, along_n) = matrix.steps();
            for (c, scale) in scales.iter().enumerate() {
                let from = values[c * along_n..].iter().step_by(along_k);
                column.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                panels.set_column(at + c, &column, *scale);
            }
            at += matrix.n();
        }
        Ok(panels)
    }

    fn pack_floats(&self, engine: &Engine, k: usize, n: usize) -> TractResult<Weights> {
        let mut weights = match engine.half_panels() {
            Some(mut panels) => {
                panels.resize(k, n);
                Weights::Half(panels)
            }
            None => Weights::F32(PackedF32::zeros(engine.isa, k, n)),
        };
        let mut column = vec![0f32; k];
        let mut at = 0;
        for Columns { matrix, .. } in &self.columns {
            let (along_k, along_n) = matrix.steps();
            for c in 0..matrix.n() {
                // int8 beside f32 becomes f32
                match &matrix.scales {
                    None => {
                        let values = matrix.values.try_as_plain_ram()?;
                        let from = values.as_slice::<f32>()?[c * along_n..].iter().step_by(along_k);
                        column.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                    }
                    Some(scales) => {
                        let values = matrix.values.try_as_plain_ram()?;
                        let from = values.as_slice::<i8>()?[c * along_n..].iter().step_by(along_k);
                        column.iter_mut().zip(from).for_each(|(to, from)| *to = f32::from(*from) * scales[c]);
                    }
                }
                match &mut weights {
                    Weights::Half(panels) => panels.set_column(at + c, &column),
                    Weights::F32(panels) => panels.set_column(at + c, &column),
                    Weights::Int8(_) | Weights::Expanded(_) => unreachable!("made above"),
                }
            }
            at += matrix.n();
        }
        Ok(weights)
    }
}

impl LinearSpec {
    /// One layer and nothing around it.
    pub fn layer(columns: Columns) -> LinearSpec {
        let layer = LayerSpec { columns: vec![columns], activation: Activation::Identity, gated: false };
        LinearSpec { layers: vec![layer], ..LinearSpec::all_rows() }
    }

    /// No layer yet.
    pub fn all_rows() -> LinearSpec {
        LinearSpec { norm: None, layers: Vec::new(), start: 0, rows: None, residual: false }
    }

    pub fn is_int8(&self) -> bool {
        self.layers.iter().any(LayerSpec::is_int8)
    }

    /// Packs norm and layers.
    pub fn fused(&self, engine: &Engine) -> TractResult<FusedMlp> {
        // activations of an MLP are where rounding to int8 costs most
        let expanded = self.layers.len() > 1 && engine.isa.has_matrix_registers() && self.layers.iter().all(LayerSpec::is_int8);
        let layers = self.layers.iter().map(|layer| layer.pack(engine, expanded)).collect::<TractResult<_>>()?;
        Ok(FusedMlp { norm: self.norm.as_ref().map(|norm| norm.as_ref().clone()), layers })
    }
}

/// A packed [`LinearSpec`].
#[derive(Debug)]
pub struct LinearKernel {
    fused: FusedMlp,
    start: usize,
    /// `None`: all.
    rows: Option<usize>,
    /// Rows of the output as planned.
    planned: usize,
}

impl LinearKernel {
    pub fn pack(spec: &LinearSpec, input: &[usize], engine: &Engine) -> TractResult<LinearKernel> {
        let fused = spec.fused(engine)?;
        let all = input.iter().product::<usize>() / fused.k();
        let planned = spec.rows.unwrap_or(all - spec.start);
        ensure!(spec.start + planned <= all, "rows {} to {} of {all}", spec.start, spec.start + planned);
        Ok(LinearKernel { fused, start: spec.start, rows: spec.rows, planned })
    }

    /// Rows of the output for an input of `len` values: those that are asked for, as far as they are there (as ONNX's Slice has it).
    fn rows(&self, len: usize) -> usize {
        let there = (len / self.fused.k()).saturating_sub(self.start);
        self.rows.map_or(there, |rows| rows.min(there))
    }
}

impl Kernel for LinearKernel {
    fn name(&self) -> &'static str {
        match (self.fused.norm.is_some(), self.fused.layers.len()) {
            (true, 1) => "NormLinear",
            (true, _) => "NormMlp",
            (false, 1) => "Linear",
            (false, _) => "Mlp",
        }
    }

    fn out_len(&self, _planned: usize, inputs: &[&[f32]]) -> usize {
        self.rows(inputs[0].len()) * self.fused.n()
    }

    fn run(&self, engine: &Engine, _memory: &mut Memory, inputs: &[&[f32]], out: &mut [f32]) {
        let (isa, fused) = (engine.isa, &self.fused);
        let (k, n) = (fused.k(), fused.n());
        let input = &inputs[0][self.start * k..];
        let residual = inputs.get(1).copied().unwrap_or(&[]);
        assert!(residual.is_empty() || residual.len() == out.len(), "a residual has the rows of the output");
        engine.workers.rows(out, n, isa.tile_rows(), fused.block_rows(isa), &|first, out| {
            let count = out.len() / n;
            let residual = residual.get(first * n..first * n + out.len()).unwrap_or(&[]);
            let row = |i: usize| &input[(first + i) * k..][..k];
            with_scratch(|scratch| fused.run(isa, count, row, residual, out, &mut scratch.fused));
        });
    }

    fn macs(&self) -> (usize, usize) {
        let (mut int8, mut float) = (0, 0);
        for layer in &self.fused.layers {
            let macs = self.planned * layer.weights().k() * layer.weights().n();
            match layer.weights() {
                Weights::Int8(_) => int8 += macs,
                Weights::Half(_) | Weights::Expanded(_) | Weights::F32(_) => float += macs,
            }
        }
        (int8, float)
    }
}
