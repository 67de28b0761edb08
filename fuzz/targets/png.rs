//! `make fuzz TARGETS=png`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("png");
