//! `make fuzz TARGETS=jpeg`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("jpeg");
