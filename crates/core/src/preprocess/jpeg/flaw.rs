//! What may be wrong with a JPEG picture.

/// A defect of a picture, as the end of a sentence about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("it does not begin as one")]
    NoStart,
    #[error("it ends before its picture does")]
    Cut,
    #[error("its header is damaged")]
    Header,
    #[error("it is {0}x{1}")]
    Size(usize, usize),
    #[error("bytes are missing in it: a part of it ends too early")]
    Short,
    #[error("bytes in it are damaged: there is no such code")]
    NoCode,
    #[error("bytes in it are damaged: a block has too many coefficients")]
    Full,
    #[error("bytes in it are damaged: some are left over")]
    Extra,
    #[error(
        "its colours come one after the other at different resolutions, which is not decoded here (jpegtran makes a usual picture of it)"
    )]
    Apart,
}
