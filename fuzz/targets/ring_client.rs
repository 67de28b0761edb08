//! `make fuzz TARGETS=ring_client`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("ring_client");
