//! Frame memory that goes round instead of being allocated.

use std::sync::{Mutex, PoisonError};

/// A few spare buffers shared by the threads of the frame path.
#[derive(Debug, Default)]
pub struct Pool {
    spare: Mutex<Vec<Vec<u8>>>,
}

/// One at the source, one in the mailbox, one in work, one on its way back.
const KEPT: usize = 4;

impl Pool {
    /// A used buffer, or an empty one at the start.
    pub fn take(&self) -> Vec<u8> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Takes a buffer back; beyond four spare ones it is freed.
    pub fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < KEPT {
            spare.push(buffer);
        }
    }
}
