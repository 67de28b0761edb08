//! What one kind of sources says of itself: an entry of the table of [`SourceKinds`](crate::source::SourceKinds).

use std::fmt::Debug;

use eomt_edge_core::pipeline::{Source, SourceError};

use super::options::SourceOptions;

/// What a URI names, understood and not opened yet.
pub trait SourceSpec: Debug {
    /// Opens the source.
    ///
    /// # Errors
    /// When there is no such source, and waiting for it would not help.
    fn open(&self, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError>;

    /// For `doctor`: what keeps the source from giving frames now, as far as can be known without opening it.
    ///
    /// # Errors
    /// A sentence, without the name of the key.
    fn check(&self, _options: &SourceOptions) -> Result<(), String> {
        Ok(())
    }
}

/// What [`SourceKind::parse`] understood, or why not.
pub type ParsedSpec = Result<Box<dyn SourceSpec>, String>;

/// One kind of sources: an entry of the table.
#[derive(Debug)]
pub struct SourceKind {
    /// What the URI begins with, without the colon.
    pub scheme: &'static str,
    /// How its URIs read, for help and errors: `replay:DIR[@fps]`.
    pub usage: &'static [&'static str],
    /// What the frames are, in a line.
    pub summary: &'static str,
    /// Whether crop, rotate and flip of `[camera]` apply to its frames.
    pub uses_view: bool,
    /// Whether its frames are of `source.size`.
    pub uses_source_size: bool,
    /// Understands what follows the colon, `None` where there is none. The error is a sentence, empty where the usage says it all.
    pub parse: fn(Option<&str>) -> ParsedSpec,
}
