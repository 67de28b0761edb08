//! `make fuzz TARGETS=ring_server`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("ring_server");
