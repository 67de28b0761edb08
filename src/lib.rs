//! On-device EoMT segmentation: frames in, masks out, to any process on the machine.
//!
//! ```text
//! source ──Frame──▶ preprocess ──Tensor──▶ model ──Logits──▶ segment ──Segments──▶ sink
//! replay, scenes,   resize, pad,           tract plan        panoptic,             mask ring
//! pipe              normalize                                instance, semantic    (shared memory), display
//! ```
//!
//! One direction, typed values. A stage is a function from one noun of [`data`] to the next; [`pipeline`] wires them and owns
//! the ports to the outside; [`daemon`] is the composition root; [`tools`] are the commands beside it.
//!
//! | room | may import |
//! |---|---|
//! | [`data`] | - |
//! | [`kernels`] | - |
//! | [`config`], [`overlay`] | data |
//! | [`preprocess`], [`model`], [`segment`] | data, kernels |
//! | [`model_file`] | data, model, kernels |
//! | [`pipeline`] | data, preprocess, model, segment |
//! | [`source`], [`sink`] | data, the ports of pipeline, preprocess (pixel formats), client (the ring's layout); sink's display: config, overlay |
//! | [`daemon`] | all but tools, cli |
//! | [`tools`] | all but daemon |
//! | [`client`] | - (other people's programs copy it) |
//!
//! `tests/architecture.rs` holds the table to it. From `data` to `segment` there is no file, clock, thread or log call except
//! the model's word on rewrites that do not fire. `unsafe` lives in [`sink::ring`], `source::v4l2::sys`, [`client`], `tools::ort` (a
//! foreign library's C API), the display's framebuffer ioctls and `kernels::arch`, `std::arch` in the last one only.
//!
//! Absent on purpose: a GPU path, batches (a camera gives one frame at a time), a network protocol (bridges belong to the
//! subscriber's side), masked attention as an option of inference (a checkpoint says whether it needs it).

pub mod cli;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod sink;
pub mod source;
pub mod view;
