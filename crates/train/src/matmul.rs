//! Matrix products in the graph, through [`product`](super::product): forward and backward without copies of transposed operands.

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor, bail};

use super::operators::{values, with_values};
use super::product::{Sum, Target, View, multiply};

/// `[.., m, k]` times `[.., k, n]`, each of the leading matrices: `[.., m, n]`.
pub(super) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.contiguous()?.apply_op2(&b.contiguous()?, Matmul { transposed: false })
}

/// `[.., m, k]` times the transposed of `[.., n, k]`, each of the leading matrices: `[.., m, n]`.
pub(super) fn matmul_transposed(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.contiguous()?.apply_op2(&b.contiguous()?, Matmul { transposed: true })
}

struct Matmul {
    /// The right factor.
    transposed: bool,
}

impl Matmul {
    /// The right factor of one product, `columns` values a row in memory.
    fn right<'a>(&self, b: &'a [f32], columns: usize) -> View<'a> {
        let view = View::rows(b, columns);
        if self.transposed { view.transposed() } else { view }
    }
}

impl CustomOp2 for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn cpu_fwd(&self, a: &CpuStorage, a_layout: &Layout, b: &CpuStorage, b_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (of_a, of_b) = (a_layout.dims(), b_layout.dims());
        let ([batch_a @ .., m, k], [batch_b @ .., rows, columns]) = (of_a, of_b) else { bail!("factors that are no matrices") };
        let (inner, n) = if self.transposed { (columns, rows) } else { (rows, columns) };
        if batch_a != batch_b || k != inner || [*m, *k, *n].contains(&0) {
            bail!("a product of {of_a:?} and {of_b:?}");
        }
        let (a, b) = (values(a, a_layout)?, values(b, b_layout)?);
        let mut out = vec![0.0f32; a.len() / k * n];
        for ((a, b), out) in a.chunks_exact(m * k).zip(b.chunks_exact(k * n)).zip(out.chunks_exact_mut(m * n)) {
            multiply(Target::rows(out, *n), View::rows(a, *k), self.right(b, *columns), Sum::Fresh);
        }
        Ok((CpuStorage::F32(out), Shape::from([batch_a, &[*m, *n]].concat())))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (m, k, n, columns) = (a.dim(D::Minus2)?, a.dim(D::Minus1)?, grad.dim(D::Minus1)?, b.dim(D::Minus1)?);
        let (da, db) = with_values([a, b, grad], |[a, b, grad]| {
            let (mut da, mut db) = (vec![0.0f32; a.len()], vec![0.0f32; b.len()]);
            let factors = a.chunks_exact(m * k).zip(b.chunks_exact(k * n)).zip(grad.chunks_exact(m * n));
            for (((a, b), grad), (da, db)) in factors.zip(da.chunks_exact_mut(m * k).zip(db.chunks_exact_mut(k * n))) {
                let (a, grad) = (View::rows(a, k), View::rows(grad, n));
                multiply(Target::rows(da, k), grad, self.right(b, columns).transposed(), Sum::Fresh);
                let [left, right] = if self.transposed { [grad, a] } else { [a, grad] };
                multiply(Target::rows(db, columns), left.transposed(), right, Sum::Fresh);
            }
            (da, db)
        })?;
        let tensor = |data: Vec<f32>, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device()).map(Some);
        Ok((tensor(da, a)?, tensor(db, b)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::tests::{check, random};

    #[test]
    fn gradients_are_the_slopes() {
        check(|t| matmul(&t[0], &t[1]), &[random(&[2, 3, 5, 7], 1), random(&[2, 3, 7, 4], 2)]);
        check(|t| matmul_transposed(&t[0], &t[1]), &[random(&[3, 5, 7], 3), random(&[3, 4, 7], 4)]);
        check(|t| matmul_transposed(&t[0], &t[1]), &[random(&[40, 33], 5), random(&[35, 33], 6)]);
    }

    #[test]
    fn values_are_those_of_the_framework() {
        let (a, b) = (random(&[2, 40, 70], 7), random(&[2, 70, 33], 8));
        let expected = a.matmul(&b).unwrap();
        for ours in [matmul(&a, &b).unwrap(), matmul_transposed(&a, &b.transpose(1, 2).unwrap()).unwrap()] {
            let apart = (ours - &expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            // 70 products, hardly above 10, off by at most 2^-15 of themselves
            assert!(apart < 1e-3, "{apart}");
        }
        assert!(matmul(&a, &a).is_err());
    }
}
