//! Masks for others.
