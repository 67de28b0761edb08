//! `make fuzz TARGETS=recover`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("recover");
