//! From patches to mask logits: the ScaleBlocks, image by image, and the product with the queries.
//!
//! A transposed convolution of 2x2 with stride 2 writes every output once, so it is a matrix product: `[h w, D]` times `[D, (2, 2) D]`. Its result
//! stays as it is, the four pixels of a patch side by side; the depthwise convolution behind it reads from where they are.
//!
//! ```text
//! up = x W + b;  a = act(up);  z = depthwise(a);  x' = norm(z)     for each ScaleBlock
//! masks = queries xᵀ
//! ```
//!
//! Of all these, `up` is kept.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::{Norm, rows, taken};
use crate::depthwise::{self, Grid, Order};
use crate::operators::{values, with_values};
use crate::parameters::Activation;
use crate::product::{Sum, Target, View, multiply};
use crate::workspace::{Buffer, Workspace};

/// The weights of a ScaleBlock.
pub(crate) struct ScaleBlock {
    /// `[D, D, 2, 2]`: input, output, row, column.
    pub up: Tensor,
    pub bias: Tensor,
    /// `[D, 1, 3, 3]`
    pub depthwise: Tensor,
    pub norm: Norm,
}

/// The ScaleBlocks behind one another, on a square of patches.
pub(crate) struct Masks {
    pub blocks: Vec<ScaleBlock>,
    pub activation: Activation,
    /// Patches along a side; they are the last tokens.
    pub grid: usize,
}

/// `[B, T, D]` and queries `[B, Q, D]` → mask logits `[B, Q, h w]`
pub(crate) fn masks(tokens: &Tensor, queries: &Tensor, layer: Masks, workspace: &Arc<Workspace>) -> Result<Tensor> {
    let operator = Product { layer, workspace: workspace.clone(), saved: Mutex::default() };
    tokens.contiguous()?.apply_op2(&queries.contiguous()?, operator)
}

struct Product {
    layer: Masks,
    workspace: Arc<Workspace>,
    saved: Mutex<Option<Saved>>,
}

struct Saved {
    /// Of each ScaleBlock.
    kernels: Vec<Kernels>,
    /// Of each image and ScaleBlock, what goes into the activation.
    images: Vec<Vec<Buffer>>,
}

/// What a pass over a ScaleBlock's convolutions left, for its gradient.
struct Stage {
    /// Slopes of the activation.
    slopes: Buffer,
    /// Behind the activation.
    active: Buffer,
    /// Behind the depthwise convolution, and the moments of its rows.
    spread: Buffer,
    moments: Buffer,
    /// Behind the norm.
    out: Buffer,
}

/// The kernels of a ScaleBlock as its products read them, or their gradients.
struct Kernels {
    /// `[D, (2, 2) D]`
    up: Buffer,
    /// `[9, D]`
    taps: Vec<f32>,
}

impl ScaleBlock {
    fn kernels(&self, workspace: &Workspace) -> Result<Kernels> {
        with_values([&self.up, &self.depthwise], |[up, depthwise]| {
            let d = depthwise.len() / 9;
            let mut kernel = workspace.take(up.len());
            for (row, from) in kernel.chunks_exact_mut(4 * d).zip(up.chunks_exact(4 * d)) {
                for (at, from) in from.as_chunks::<4>().0.iter().enumerate() {
                    (0..4).for_each(|place| row[place * d + at] = from[place]);
                }
            }
            Kernels { up: kernel, taps: (0..9 * d).map(|at| depthwise[at % d * 9 + at / d]).collect() }
        })
    }

    fn add_kernels(&self, slopes: &Kernels, workspace: &Workspace) {
        let d = slopes.taps.len() / 9;
        workspace.gradient(&self.up, |up| {
            for (row, to) in slopes.up.chunks_exact(4 * d).zip(up.chunks_exact_mut(4 * d)) {
                for (at, to) in to.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    (0..4).for_each(|place| to[place] += row[place * d + at]);
                }
            }
        });
        workspace.gradient(&self.depthwise, |sums| (0..9 * d).for_each(|at| sums[at % d * 9 + at / d] += slopes.taps[at]));
    }

    /// From `x` on a grid of `side`: what goes into the activation, and what comes out of the block.
    fn forward(
        &self,
        kernels: &Kernels,
        x: &[f32],
        side: usize,
        activation: Activation,
        workspace: &Workspace,
    ) -> Result<(Buffer, Buffer)> {
        let d = kernels.taps.len() / 9;
        let (mut up, mut active) = (workspace.take(4 * x.len()), workspace.take(4 * x.len()));
        multiply(Target::rows(&mut up, 4 * d), View::rows(x, d), View::rows(&kernels.up, 4 * d), Sum::Fresh);
        with_values([&self.bias], |[bias]| rows::add_activate(activation, &mut up, bias, &mut active))?;
        let mut spread = workspace.take(4 * x.len());
        depthwise::forward(*rows::ISA, &active, &kernels.taps, Grid::square(2 * side), Order::Blocks, &mut spread);
        drop(active);
        let (out, _) = self.norm.forward(&spread, workspace)?;
        Ok((up, out))
    }

    /// The same again, from what goes into the activation.
    fn again(&self, kernels: &Kernels, mut up: Buffer, side: usize, activation: Activation, workspace: &Workspace) -> Result<Stage> {
        let (mut active, mut spread) = (workspace.take(up.len()), workspace.take(up.len()));
        rows::activate_slopes(activation, &mut up, &mut active);
        depthwise::forward(*rows::ISA, &active, &kernels.taps, Grid::square(2 * side), Order::Blocks, &mut spread);
        let (out, moments) = self.norm.forward(&spread, workspace)?;
        Ok(Stage { slopes: up, active, spread, moments, out })
    }

    /// The gradient of `x` from that of the output; those of the kernels are added to `slopes`.
    fn backward(
        &self,
        (kernels, slopes): (&Kernels, &mut Kernels),
        x: &[f32],
        stage: Stage,
        grad: &[f32],
        workspace: &Workspace,
    ) -> Result<Buffer> {
        let d = kernels.taps.len() / 9;
        let mut dspread = workspace.take(grad.len());
        self.norm.backward(&stage.spread, &stage.moments, grad, (&mut dspread, Sum::Fresh), workspace)?;
        let mut up = workspace.take(grad.len());
        let grid = Grid::square((grad.len() / d).isqrt());
        depthwise::backward(*rows::ISA, &stage.active, &kernels.taps, grid, Order::Blocks, &dspread, (&mut up, &mut slopes.taps));
        let mut sums = vec![0.0; d];
        rows::times_add_rows(&mut up, &stage.slopes, &mut sums);
        workspace.add(&self.bias, &sums);
        let grad = View::rows(&up, 4 * d);
        multiply(Target::rows(&mut slopes.up, 4 * d), View::rows(x, d).transposed(), grad, Sum::Onto);
        let mut dx = workspace.take(x.len());
        multiply(Target::rows(&mut dx, d), grad, View::rows(&kernels.up, 4 * d).transposed(), Sum::Fresh);
        Ok(dx)
    }
}

impl Product {
    /// Patches along a side behind `blocks` blocks.
    fn side(&self, blocks: usize) -> usize {
        self.layer.grid << blocks
    }

    /// `queries xᵀ` of one image, and what the blocks keep.
    fn forward(&self, kernels: &[Kernels], patches: &[f32], queries: &[f32], d: usize, out: &mut [f32]) -> Result<Vec<Buffer>> {
        let (layer, workspace) = (&self.layer, &*self.workspace);
        let mut x: Option<Buffer> = None;
        let mut saved = vec![];
        for (index, (block, kernels)) in layer.blocks.iter().zip(kernels).enumerate() {
            let (up, next) = block.forward(kernels, x.as_deref().unwrap_or(patches), self.side(index), layer.activation, workspace)?;
            saved.push(up);
            x = Some(next);
        }
        let x = x.as_deref().unwrap_or(patches);
        multiply(Target::rows(out, x.len() / d), View::rows(queries, d), View::rows(x, d).transposed(), Sum::Fresh);
        Ok(saved)
    }

    /// The gradients of one image, of its patches and its queries; those of the kernels are added to `slopes`.
    fn backward(&self, image: Image, saved: Vec<Buffer>, kernels: &[Kernels], slopes: &mut [Kernels]) -> Result<()> {
        let (layer, workspace) = (&self.layer, &*self.workspace);
        let Image { patches, queries, grad, dpatches, dqueries, d } = image;
        let again =
            |(index, up): (usize, Buffer)| layer.blocks[index].again(&kernels[index], up, self.side(index), layer.activation, workspace);
        let mut stages = saved.into_iter().enumerate().map(again).collect::<Result<Vec<Stage>>>()?;
        let x = stages.last().map_or(patches, |stage| &stage.out);
        let grad = View::rows(grad, x.len() / d);
        multiply(Target::rows(dqueries, d), grad, View::rows(x, d), Sum::Fresh);
        let mut dx = workspace.take(x.len());
        multiply(Target::rows(&mut dx, d), grad.transposed(), View::rows(queries, d), Sum::Fresh);
        while let Some(stage) = stages.pop() {
            let index = stages.len();
            let x = stages.last().map_or(patches, |stage| &stage.out);
            dx = layer.blocks[index].backward((&kernels[index], &mut slopes[index]), x, stage, &dx, workspace)?;
        }
        dpatches.copy_from_slice(&dx);
        Ok(())
    }
}

/// What the gradient of an image is made of, and where it goes.
struct Image<'a> {
    patches: &'a [f32],
    queries: &'a [f32],
    /// Of the mask logits.
    grad: &'a [f32],
    dpatches: &'a mut [f32],
    dqueries: &'a mut [f32],
    d: usize,
}

/// Slices of one image after the other.
fn images<'a>(values: &'a [f32], batch: usize) -> std::slice::ChunksExact<'a, f32> {
    values.chunks_exact(values.len() / batch)
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "masks"
    }

    fn cpu_fwd(&self, tokens: &CpuStorage, layout: &Layout, queries: &CpuStorage, of_queries: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((batch, _, d), (_, count, _)) = (layout.shape().dims3()?, of_queries.shape().dims3()?);
        let (tokens, queries) = (values(tokens, layout)?, values(queries, of_queries)?);
        let (patches, pixels) = (self.layer.grid.pow(2) * d, self.side(self.layer.blocks.len()).pow(2));
        let mut out = vec![0.0; batch * count * pixels];
        let kernels = self.layer.blocks.iter().map(|block| block.kernels(&self.workspace)).collect::<Result<Vec<_>>>()?;
        let mut saved = Vec::with_capacity(batch);
        for ((tokens, queries), out) in images(tokens, batch).zip(images(queries, batch)).zip(out.chunks_exact_mut(count * pixels)) {
            saved.push(self.forward(&kernels, &tokens[tokens.len() - patches..], queries, d, out)?);
        }
        *self.saved.lock().expect("a pass does not panic") = Some(Saved { kernels, images: saved });
        Ok((CpuStorage::F32(out), Shape::from((batch, count, pixels))))
    }

    fn bwd(&self, tokens: &Tensor, queries: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (batch, _, d) = tokens.dims3()?;
        let patches = self.layer.grid.pow(2) * d;
        let Saved { kernels, images: saved } = taken(&self.saved)?;
        let zeros = |kernels: &Kernels| Kernels { up: self.workspace.zeros(kernels.up.len()), taps: vec![0.0; kernels.taps.len()] };
        let mut slopes: Vec<Kernels> = kernels.iter().map(zeros).collect();
        let (dtokens, dqueries) = with_values([tokens, queries, grad], |[tokens, queries, grad]| -> Result<_> {
            let (mut dtokens, mut dqueries) = (vec![0.0; tokens.len()], vec![0.0; queries.len()]);
            let (token_len, query_len) = (tokens.len() / batch, queries.len() / batch);
            let inputs = images(tokens, batch).zip(images(queries, batch)).zip(images(grad, batch));
            let outputs = dtokens.chunks_exact_mut(token_len).zip(dqueries.chunks_exact_mut(query_len));
            for ((((tokens, queries), grad), (dtokens, dqueries)), saved) in inputs.zip(outputs).zip(saved) {
                let (patches, dpatches) = (&tokens[token_len - patches..], &mut dtokens[token_len - patches..]);
                self.backward(Image { patches, queries, grad, dpatches, dqueries, d }, saved, &kernels, &mut slopes)?;
            }
            Ok((dtokens, dqueries))
        })??;
        self.layer.blocks.iter().zip(&slopes).for_each(|(block, slopes)| block.add_kernels(slopes, &self.workspace));
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device());
        Ok((Some(tensor(dtokens, tokens)?), Some(tensor(dqueries, queries)?)))
    }
}
