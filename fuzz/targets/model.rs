//! `make fuzz TARGETS=model`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("model");
