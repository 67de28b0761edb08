//! `make fuzz TARGETS=ros_image`.
#![cfg_attr(fuzzing, no_main)]

eomt_edge_fuzz::target!("ros_image");
