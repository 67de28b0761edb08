//! `make fuzz TARGETS=stream`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("stream");
