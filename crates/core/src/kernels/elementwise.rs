//! Sums and multiples of rows.

use super::arch::per_isa;
use super::columns::{array_at, array_at_mut, column_chunks};

/// `to = values * factor`.
#[inline(always)]
pub fn scale(values: &[f32], factor: f32, to: &mut [f32]) {
    column_chunks!(to.len(), |at, W| {
        let (values, to) = (array_at::<_, W>(values, at), array_at_mut::<_, W>(to, at));
        for i in 0..W {
            to[i] = values[i] * factor;
        }
    });
}

/// The body of [`add`], for kernels that are compiled for an instruction set already.
#[inline(always)]
pub fn add_body(values: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += value);
}

per_isa! {
    /// `to += values`; empty `values` add nothing.
    pub fn add(values: &[f32], to: &mut [f32]) = add_body;
}
