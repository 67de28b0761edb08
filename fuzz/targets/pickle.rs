//! `make fuzz TARGETS=pickle`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("pickle");
