//! Structures and constants of `<linux/videodev2.h>` (<https://docs.kernel.org/userspace-api/media/v4l/videodev.html>; the header is
//! `BSD-3-Clause` at one's option), for the `v4l` crate.
//!
//! The published crate of this name runs bindgen in everybody's build, which needs libclang and the kernel's headers there, and fails in its middle
//! where they are half installed or of the wrong machine. The header is a stable ABI: what bindgen makes of it is the same on every 64-bit Linux, and
//! each structure's size and offsets are asserted when this crate is compiled. `bindings.sh` writes `bindings.rs` anew.

#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, clippy::all)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the structures of <linux/videodev2.h> are generated for 64-bit Linux");

include!("bindings.rs");
