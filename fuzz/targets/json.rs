//! `make fuzz TARGETS=json`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("json");
