//! The assignment of rows to columns with the largest total profit: the Hungarian algorithm with potentials (Kuhn 1955, Munkres 1957), one
//! shortest augmenting path for each row.
//!
//! ```text
//! for each row:  grow a tree of alternating paths from it by the smallest reduced cost (cost - u[row] - v[column])
//!                until a free column is reached; adjust the potentials u, v; flip the path
//! ```
//!
//! Whole numbers, so the optimum is exact and the same on every machine. O(rows² x columns). Buffers are reused.

/// Profits beyond this could overflow sums of potentials.
pub const PROFIT_MAX: i32 = 1 << 20;

/// Solves assignment problems; buffers are reused.
#[derive(Debug, Default)]
pub struct Assignment {
    /// Potentials of rows and columns; index 0 is the root of the tree.
    u: Vec<i32>,
    v: Vec<i32>,
    /// Row of each column, from 1; 0 = free.
    row_of: Vec<usize>,
    /// The column before, on the shortest path to each column.
    before: Vec<usize>,
    least: Vec<i32>,
    used: Vec<bool>,
    /// Column of each row; `None` where no profit is to be had.
    pub column_of: Vec<Option<usize>>,
}

impl Assignment {
    /// With room for so many rows and columns.
    pub fn with_capacity(rows: usize, columns: usize) -> Assignment {
        let wide = columns.max(rows) + 1;
        Assignment {
            u: Vec::with_capacity(rows + 1),
            v: Vec::with_capacity(wide),
            row_of: Vec::with_capacity(wide),
            before: Vec::with_capacity(wide),
            least: Vec::with_capacity(wide),
            used: Vec::with_capacity(wide),
            column_of: Vec::with_capacity(rows),
        }
    }

    /// Fills [`Assignment::column_of`]: each row gets at most one of `columns`, no column goes to two rows, and the sum of `profit`
    /// (`[rows, columns]`, 0 = these two must not meet, at most [`PROFIT_MAX`]) is the largest that there is.
    pub fn solve(&mut self, rows: usize, columns: usize, profit: &[i32]) {
        assert_eq!(profit.len(), rows * columns, "profits of {rows} rows and {columns} columns");
        // rows that get nothing need a column, too
        let wide = columns.max(rows);
        self.clear(rows, wide);
        for row in 1..=rows {
            self.row_of[0] = row;
            let mut column = 0;
            self.least.fill(i32::MAX);
            self.used.fill(false);
            loop {
                self.used[column] = true;
                column = self.grow(column, columns, wide, profit);
                if self.row_of[column] == 0 {
                    break;
                }
            }
            while column != 0 {
                let before = self.before[column];
                self.row_of[column] = self.row_of[before];
                column = before;
            }
        }
        for column in 1..=columns {
            let row = self.row_of[column];
            if row > 0 && profit[(row - 1) * columns + column - 1] > 0 {
                self.column_of[row - 1] = Some(column - 1);
            }
        }
    }

    fn clear(&mut self, rows: usize, wide: usize) {
        let Assignment { u, v, row_of, before, least, used, column_of } = self;
        u.clear();
        u.resize(rows + 1, 0);
        for potentials in [v, least] {
            potentials.clear();
            potentials.resize(wide + 1, 0);
        }
        for links in [row_of, before] {
            links.clear();
            links.resize(wide + 1, 0);
        }
        used.clear();
        used.resize(wide + 1, false);
        column_of.clear();
        column_of.resize(rows, None);
    }

    /// Looks from the row of `column` at all columns outside of the tree, and returns the nearest, after adjusting the potentials.
    fn grow(&mut self, column: usize, columns: usize, wide: usize, profit: &[i32]) -> usize {
        let Assignment { u, v, row_of, before, least, used, .. } = self;
        let row = row_of[column];
        let (mut step, mut nearest) = (i32::MAX, 0);
        for other in (1..=wide).filter(|&other| !used[other]) {
            let cost = if other <= columns { -profit[(row - 1) * columns + other - 1] } else { 0 };
            let reduced = cost - u[row] - v[other];
            if reduced < least[other] {
                (least[other], before[other]) = (reduced, column);
            }
            if least[other] < step {
                (step, nearest) = (least[other], other);
            }
        }
        for other in 0..=wide {
            if used[other] {
                u[row_of[other]] += step;
                v[other] -= step;
            } else if least[other] != i32::MAX {
                least[other] -= step;
            }
        }
        nearest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest profit of all ways, one by one.
    fn by_force(row: usize, columns: usize, profit: &[i32], taken: &mut [bool]) -> i32 {
        let Some(line) = profit.get(row * columns..(row + 1) * columns).filter(|line| !line.is_empty()) else { return 0 };
        let mut best = by_force(row + 1, columns, profit, taken);
        for column in 0..columns {
            if !taken[column] {
                taken[column] = true;
                best = best.max(line[column] + by_force(row + 1, columns, profit, taken));
                taken[column] = false;
            }
        }
        best
    }

    #[test]
    fn no_other_way_gives_more() {
        let mut state = 1u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        let mut assignment = Assignment::default();
        for round in 0..600 {
            let (rows, columns) = (next(6) as usize, next(7) as usize);
            // small numbers make ties, many zeros make pairs that must not meet
            let (range, zeros) = ([4, 1000, PROFIT_MAX as u32][round % 3], next(4));
            let profit: Vec<i32> = (0..rows * columns).map(|_| if next(4) < zeros { 0 } else { next(range) as i32 }).collect();
            assignment.solve(rows, columns, &profit);
            let mut taken = vec![false; columns];
            let mut sum = 0;
            for (row, column) in assignment.column_of.iter().enumerate() {
                let Some(column) = *column else { continue };
                assert!(!std::mem::replace(&mut taken[column], true), "column {column} goes to two rows");
                assert!(profit[row * columns + column] > 0, "a pair that must not meet");
                sum += profit[row * columns + column];
            }
            assert_eq!(assignment.column_of.len(), rows);
            assert_eq!(sum, by_force(0, columns, &profit, &mut vec![false; columns]), "{rows}x{columns}: {profit:?}");
        }
    }

    #[test]
    fn greed_does_not_pay() {
        let mut assignment = Assignment::default();
        assignment.solve(2, 2, &[10, 9, 9, 1]);
        assert_eq!(assignment.column_of, [Some(1), Some(0)]);
        assignment.solve(0, 3, &[]);
        assert_eq!(assignment.column_of, []);
        assignment.solve(3, 0, &[]);
        assert_eq!(assignment.column_of, [None; 3]);
    }
}
