//! `make fuzz TARGETS=torch_zip`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("torch_zip");
