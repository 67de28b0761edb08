//! Arithmetic on slices: a readable scalar truth first, SIMD twins later (under `arch`, behind CPU tokens).
//!
//! ```
//! use eomt_edge::kernels::math::softmax;
//! let mut scores = [1.0, 1.0];
//! softmax(&mut scores);
//! assert_eq!(scores, [0.5, 0.5]);
//! ```
//!
//! Invariants: no allocation, no I/O, no threads; results do not depend on how many rows are computed together.
//! Refuses: shapes that do not match (a bug of the caller: assertion).

pub mod arch;
pub mod bilinear;
pub mod math;
pub mod peak;
pub mod product;
