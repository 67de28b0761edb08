//! Arithmetic on slices: a readable scalar definition, and the same for each instruction set (see [`arch`]).
//!
//! ```
//! use eomt_edge_core::kernels::math::softmax;
//! let mut scores = [1.0, 1.0];
//! softmax(&mut scores);
//! assert_eq!(scores, [0.5, 0.5]);
//! ```
//!
//! Invariants: no I/O, no threads of their own (the caller lends some), no allocation once the scratch has grown; results do not
//! depend on the instruction set, the number of threads, or how many rows are computed together.
//! Refuses: shapes that do not match (a bug of the caller: assertion).

pub mod activation;
#[allow(unsafe_code)]
pub mod arch;
pub mod argmax;
pub mod attention;
pub mod bilinear;
pub mod colour;
mod columns;
pub mod deformable;
pub mod depthwise;
pub mod elementwise;
pub mod epilogue;
pub mod fixed_scores;
pub mod grid_sample;
pub mod layer_norm;
pub mod lerp;
pub mod linear;
pub mod math;
pub mod packed;
pub mod peak;
pub mod product;
pub mod quantize;
pub mod resize;
pub mod scale_block;
pub mod scale_changed;
pub mod scale_masks;
mod scores;
#[cfg(test)]
pub(crate) mod suite;
#[doc(hidden)]
pub mod testing;
pub mod token_merging;
pub mod workers;
