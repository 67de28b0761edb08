//! The MLP of a block with its norm, LayerScale and residual.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{Linear, Norm, Residual, rows, taken};
use crate::operators::{values, with_values};
use crate::parameters::Activation;
use crate::product::Sum;
use crate::workspace::{Buffer, Workspace};

/// The weights: `x + scale * (down(act(up n)) + b)` with `n = norm(x)`; gated, `act(gate n) * up n` in the middle.
pub(crate) struct Mlp {
    pub norm: Norm,
    pub up: Linear,
    pub gate: Option<Linear>,
    pub activation: Activation,
    pub down: Residual,
}

/// `[.., D]` → `[.., D]`
pub(crate) fn mlp(x: &Tensor, layer: Mlp, workspace: &Arc<Workspace>) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Branch { layer, workspace: workspace.clone(), saved: Mutex::default() })
}

/// Moments of the norm, and what goes into the activation; gated, what that is multiplied by.
struct Saved {
    moments: Buffer,
    inner: Buffer,
    up: Option<Buffer>,
}

struct Branch {
    layer: Mlp,
    workspace: Arc<Workspace>,
    saved: Mutex<Option<Saved>>,
}

impl Branch {
    fn forward(&self, x: &[f32]) -> Result<Vec<f32>> {
        let (layer, workspace) = (&self.layer, &*self.workspace);
        let (normed, moments) = layer.norm.forward(x, workspace)?;
        let into = layer.gate.as_ref().unwrap_or(&layer.up);
        let (width, from) = into.weight.dims2()?;
        let len = x.len() / from * width;
        let mut inner = workspace.take(len);
        into.multiply(&normed, &mut inner, width)?;
        let mut hidden = workspace.take(len);
        rows::add_activate(layer.activation, &mut inner, &into.bias()?, &mut hidden);
        let mut up = None;
        if layer.gate.is_some() {
            let mut other = workspace.take(len);
            layer.up.multiply(&normed, &mut other, width)?;
            rows::add_bias(&mut other, &layer.up.bias()?);
            rows::times(&mut hidden, &other);
            up = Some(other);
        }
        drop(normed);
        let out = layer.down.forward(x, &hidden, workspace)?;
        *self.saved.lock().expect("a pass does not panic") = Some(Saved { moments, inner, up });
        Ok(out)
    }

    fn backward(&self, x: &[f32], grad: &[f32]) -> Result<Vec<f32>> {
        let (layer, workspace) = (&self.layer, &*self.workspace);
        let Saved { moments, inner: mut slopes, up } = taken(&self.saved)?;
        let into = layer.gate.as_ref().unwrap_or(&layer.up);
        let width = into.weight.dim(0)?;
        let mut hidden = workspace.take(slopes.len());
        rows::activate_slopes(layer.activation, &mut slopes, &mut hidden);
        let mut open = None;
        if let Some(up) = up {
            // hidden = open * up, so each factor is the slope by the other one
            rows::times(&mut slopes, &up);
            let mut product = workspace.take(up.len());
            rows::product(&hidden, &up, &mut product);
            open = Some(std::mem::replace(&mut hidden, product));
        }
        layer.down.backward(&mut hidden, grad, workspace)?;
        let normed = layer.norm.again(x, &moments, workspace)?;
        let mut dnormed = workspace.take(x.len());
        let mut sum = Sum::Fresh;
        if let Some(mut dup) = open {
            let mut sums = vec![0.0; width];
            rows::times_add_rows(&mut dup, &hidden, &mut sums);
            layer.up.add_bias(&sums, workspace);
            layer.up.backward(&normed, &dup, width, (&mut dnormed, Sum::Fresh), workspace)?;
            sum = Sum::Onto;
        }
        let mut sums = vec![0.0; width];
        rows::times_add_rows(&mut hidden, &slopes, &mut sums);
        into.add_bias(&sums, workspace);
        into.backward(&normed, &hidden, width, (&mut dnormed, sum), workspace)?;
        let mut dx = grad.to_vec();
        layer.norm.backward(x, &moments, &dnormed, (&mut dx, Sum::Onto), workspace)?;
        Ok(dx)
    }
}

impl CustomOp1 for Branch {
    fn name(&self) -> &'static str {
        "mlp"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.forward(values(x, layout)?)?), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_values([x, grad], |[x, grad]| self.backward(x, grad))??;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
