//! `make fuzz TARGETS=safetensors`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("safetensors");
