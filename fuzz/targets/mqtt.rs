//! `make fuzz TARGETS=mqtt`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("mqtt");
