//! `make fuzz TARGETS=bag`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("bag");
