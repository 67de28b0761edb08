//! Rows of work for some threads.

use std::sync::Arc;

use rayon::ThreadPool;
use rayon::prelude::*;

/// The threads that kernels may use: the caller's alone, or a pool.
#[derive(Debug, Clone, Default)]
pub struct Workers(Option<Arc<ThreadPool>>);

impl Workers {
    /// The caller's thread alone.
    pub fn one() -> Workers {
        Workers(None)
    }

    /// All threads of `pool`.
    pub fn pool(pool: Arc<ThreadPool>) -> Workers {
        Workers(Some(pool))
    }

    /// Number of threads.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// `None` when the caller's thread works alone.
    pub fn thread_pool(&self) -> Option<&Arc<ThreadPool>> {
        self.0.as_ref()
    }

    /// Does `work` on a thread of the pool, if there is one.
    ///
    /// A caller outside of the pool sleeps until its rows are done, and every call wakes the threads. Inside, the thread takes a share of
    /// the rows itself, and the others are still looking for work when the next rows come.
    pub fn inside<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            None => work(),
            Some(pool) => pool.install(work),
        }
    }

    /// Calls `work(first row, rows)` for blocks that together make up `out`, rows of `width` values.
    ///
    /// A block has at most `most` rows and, but for the last, a multiple of `tile`. Blocks come from halving, so that threads get
    /// equal shares; which thread computes a block does not change its values.
    pub fn rows(&self, out: &mut [f32], width: usize, tile: usize, most: usize, work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
        let most = (most / tile).max(1) * tile;
        match &self.0 {
            None => blocks(out, 0, width, tile, most, work),
            Some(pool) => {
                // half of an equal share at most, so that a thread that was interrupted can be helped
                let share = (out.len() / width.max(1)).div_ceil(pool.current_num_threads() * tile) * tile;
                pool.install(|| halves(out, 0, width, tile, most, share.min(most).max(tile), work));
            }
        }
    }

    /// Calls `work(index, item)` for every item.
    pub fn each<T: Send>(&self, items: &mut [T], work: &(dyn Fn(usize, &mut T) + Sync)) {
        match &self.0 {
            None => items.iter_mut().enumerate().for_each(|(index, item)| work(index, item)),
            Some(pool) => pool.install(|| items.par_iter_mut().enumerate().for_each(|(index, item)| work(index, item))),
        }
    }
}

/// Near-equal blocks, one after the other.
fn blocks(out: &mut [f32], first: usize, width: usize, tile: usize, most: usize, work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let rows = out.len() / width.max(1);
    if rows == 0 {
        return;
    }
    let count = rows.div_ceil(most);
    let size = rows.div_ceil(tile).div_ceil(count) * tile;
    out.chunks_mut(size * width).enumerate().for_each(|(index, chunk)| work(first + index * size, chunk));
}

fn halves(out: &mut [f32], first: usize, width: usize, tile: usize, most: usize, share: usize, work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let rows = out.len() / width.max(1);
    if rows <= share {
        return blocks(out, first, width, tile, most, work);
    }
    let half = rows.div_ceil(tile).div_ceil(2) * tile;
    let (upper, lower) = out.split_at_mut(half * width);
    rayon::join(|| halves(upper, first, width, tile, most, share, work), || halves(lower, first + half, width, tile, most, share, work));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_once_whatever_the_threads() {
        let pools = [Workers::one(), Workers::pool(Arc::new(rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap()))];
        for workers in &pools {
            for (rows, tile, most) in [(0, 4, 8), (1, 4, 8), (405, 12, 96), (34, 12, 1), (605, 8, 1000), (7, 1, 2)] {
                let mut out = vec![0f32; rows * 3];
                workers.rows(&mut out, 3, tile, most, &|first, block| {
                    let count = block.len() / 3;
                    assert!(first % tile == 0 && (count % tile == 0 || first + count == rows));
                    assert!(count <= most.max(tile));
                    block.chunks_mut(3).enumerate().for_each(|(i, row)| row.iter_mut().for_each(|v| *v += (first + i) as f32 + 1.0));
                });
                assert!(out.chunks(3).enumerate().all(|(i, row)| row.iter().all(|v| *v == i as f32 + 1.0)));
            }
        }
    }
}
