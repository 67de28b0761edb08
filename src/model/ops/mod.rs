//! Our own tract operators: thin adapters from tract's traits to [`crate::kernels`].
//!
//! Empty until the fused operators (int8 linear, attention, layer norm) arrive; [`super::fuse`] holds the rules that will put
//! them into a plan.
