//! The patches that a frame computes: written by the gate before the plan runs, read by its operators.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::kernels::attention::Rows;
use crate::kernels::scale_changed::enlarge;

/// The patches of one frame.
#[derive(Debug)]
pub struct Selection {
    /// (rows, columns) of patches.
    pub grid: (usize, usize),
    /// Numbers of the patches that are computed, ascending.
    pub chosen: Vec<u32>,
    /// All are: what operators keep is written anew, and nothing of it is read.
    pub all: bool,
    /// What follows for maps of the size of the grid, twice that, four times that ...: `[height, width]` each.
    pub changed: Vec<Vec<bool>>,
}

impl Selection {
    /// All patches; `levels` maps.
    pub fn new(grid: (usize, usize), levels: usize) -> Selection {
        let patches = grid.0 * grid.1;
        let changed = (0..levels).map(|level| vec![true; patches << (2 * level)]).collect();
        Selection { grid, chosen: (0..patches as u32).collect(), all: true, changed }
    }

    /// Computes everything.
    pub fn choose_all(&mut self) {
        self.all = true;
        self.chosen.clear();
        self.chosen.extend(0..(self.grid.0 * self.grid.1) as u32);
        self.changed.iter_mut().for_each(|map| map.fill(true));
    }

    /// Computes the patches that are set.
    pub fn choose(&mut self, patches: &[bool]) {
        self.all = false;
        self.chosen.clear();
        self.chosen.extend((0..).zip(patches).filter(|(_, is_set)| **is_set).map(|(index, _)| index));
        self.changed[0].copy_from_slice(patches);
        for level in 1..self.changed.len() {
            let (below, above) = self.changed.split_at_mut(level);
            let grid = (self.grid.0 << (level - 1), self.grid.1 << (level - 1));
            enlarge(grid, &below[level - 1], &mut above[0]);
        }
    }

    /// Rows of tokens of which `leading` come before the patches.
    pub fn rows(&self, leading: usize) -> Rows<'_> {
        Rows { leading, chosen: &self.chosen }
    }
}

/// One selection for all operators of a plan.
#[derive(Debug, Clone)]
pub struct Shared(Arc<RwLock<Selection>>);

impl Shared {
    pub fn new(selection: Selection) -> Shared {
        Shared(Arc::new(RwLock::new(selection)))
    }

    // a panic in between leaves a selection of an earlier frame or a part of one; the gate then starts with all patches
    pub fn read(&self) -> RwLockReadGuard<'_, Selection> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Selection> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
