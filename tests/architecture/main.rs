//! The walls that cargo cannot see: which module imports which, where `unsafe`, intrinsics, files and clocks may stand, how long
//! files and functions are, and that documents hold commands and configuration that parse.

mod documents;
mod sources;
mod walls;
