//! `make fuzz TARGETS=control`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("control");
