//! Why one frame failed.

use super::SinkError;
use crate::model::ModelError;
use crate::preprocess::DecodeError;

/// Why one frame failed; the sentence names the frame by its number in the source.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The frame is no picture: bad JPEG, another size, or nothing left after the crop.
    #[error(transparent)]
    Decode(DecodeError),
    /// The network cannot run.
    #[error("frame {sequence}: {source}")]
    Network {
        /// [`Frame::sequence`](crate::data::Frame::sequence).
        sequence: u64,
        /// What the network says.
        source: ModelError,
    },
    /// The sink does not take the frame.
    #[error("frame {sequence}: {source}")]
    Sink {
        /// [`Frame::sequence`](crate::data::Frame::sequence).
        sequence: u64,
        /// What the sink says.
        source: SinkError,
    },
}

impl PipelineError {
    /// The number of the frame that failed.
    pub fn sequence(&self) -> u64 {
        match self {
            PipelineError::Decode(error) => error.sequence(),
            PipelineError::Network { sequence, .. } | PipelineError::Sink { sequence, .. } => *sequence,
        }
    }
}
