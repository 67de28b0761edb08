//! `make fuzz TARGETS=config`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("config");
