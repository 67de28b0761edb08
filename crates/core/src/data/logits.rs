//! The network's output.

/// Class scores of every query, `[queries, classes]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassLogits {
    /// Q, the number of queries.
    pub queries: usize,
    /// C + 1: the classes and, last, "no object".
    pub classes: usize,
    /// Row-major logits.
    pub values: Vec<f32>,
}

impl ClassLogits {
    /// The `[classes]` logits of one query.
    pub fn row(&self, query: usize) -> &[f32] {
        &self.values[query * self.classes..(query + 1) * self.classes]
    }
}

/// Class logits of all queries and mask logits of the kept ones.
///
/// EoMT's masks are a product of query embeddings and pixel features (paper, section 3.2), so the mask of a query that cannot
/// survive post-processing need not be computed at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Logits {
    /// Of all queries.
    pub class: ClassLogits,
    /// Queries whose masks follow, ascending.
    pub kept: Vec<usize>,
    /// Rows of one mask.
    pub height: usize,
    /// Columns of one mask.
    pub width: usize,
    /// `[kept.len(), height, width]` mask logits.
    pub masks: Vec<f32>,
}

impl Logits {
    /// The `[height * width]` mask logits of `kept[index]`.
    pub fn mask(&self, index: usize) -> &[f32] {
        let pixels = self.height * self.width;
        &self.masks[index * pixels..(index + 1) * pixels]
    }
}
