//! The loss of one image and its gradient: bipartite matching, then weighted cross-entropy, and binary cross-entropy and dice at sampled
//! points.
//!
//! The EoMT paper trains with the loss of Mask2Former (Cheng et al. 2022, section 3.2.3 for the points, which PointRend samples by
//! uncertainty). This is transformers' `EomtLoss` for one image. The caller adds up a batch: the terms are already divided by the batch's
//! sums, so that images are independent. Random points are an argument, and the tests replay the draws of the reference. The gradient is
//! written out, because the points are few and the graph would be large.

use eomt_edge_core::kernels::math::softmax;
use pathfinding::kuhn_munkres::kuhn_munkres_min;
use pathfinding::matrix::Matrix;

use super::points::{Plane, sample, scatter, taps};
use super::rows;

/// Weights of the terms, and the points at which masks are compared.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossOptions {
    /// Weight of the cross-entropy of classes.
    pub class_weight: f32,
    /// Weight of the binary cross-entropy of masks.
    pub mask_weight: f32,
    /// Weight of the dice loss of masks.
    pub dice_weight: f32,
    /// Weight of "no object" in the cross-entropy.
    pub no_object_weight: f32,
    /// P, points per mask.
    pub points: usize,
    /// Candidates per point, of which the most uncertain are taken.
    pub oversample: f32,
    /// Share of the points taken by uncertainty; the rest is uniform.
    pub importance: f32,
}

impl Default for LossOptions {
    /// The paper's values, but 1024 points instead of 12544, enough for planes of 40x40.
    fn default() -> LossOptions {
        LossOptions {
            class_weight: 2.0,
            mask_weight: 5.0,
            dice_weight: 5.0,
            no_object_weight: 0.1,
            points: 1024,
            oversample: 3.0,
            importance: 0.75,
        }
    }
}

impl LossOptions {
    /// Points taken by uncertainty, and at random.
    pub(super) fn split(&self) -> [usize; 2] {
        let certain = (self.importance * self.points as f32) as usize;
        [certain, self.points - certain]
    }

    /// Candidates for those taken by uncertainty.
    pub(super) fn candidates(&self) -> usize {
        (self.points as f32 * self.oversample) as usize
    }
}

/// The segments of one image.
#[derive(Debug, Clone, Default)]
pub(super) struct Targets {
    /// Class index of each segment.
    pub classes: Vec<usize>,
    /// Height and width of the masks.
    pub plane: Plane,
    /// `[segments, height, width]`, 0 or 1.
    pub masks: Vec<f32>,
}

/// The prediction for one image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prediction<'a> {
    /// `[Q, C + 1]`
    pub classes: &'a [f32],
    /// `[Q, h, w]`
    pub masks: &'a [f32],
    pub queries: usize,
    pub plane: Plane,
}

/// Sums over the batch, by which the terms are divided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// Segments, at least 1.
    pub segments: f32,
    /// Weights of the cross-entropy over all queries.
    pub class_weights: f32,
}

impl Batch {
    /// The sums for images with these numbers of segments.
    pub(super) fn new(segments: &[usize], queries: usize, options: &LossOptions) -> Batch {
        let matched: usize = segments.iter().map(|segments| segments.min(&queries)).sum();
        let unmatched = segments.len() * queries - matched;
        Batch {
            segments: (segments.iter().sum::<usize>() as f32).max(1.0),
            class_weights: matched as f32 + unmatched as f32 * options.no_object_weight,
        }
    }
}

/// Unweighted terms: the share of an image in those of the batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Terms {
    /// Of classes.
    pub cross_entropy: f64,
    /// Binary cross-entropy of masks.
    pub mask: f64,
    /// Of masks.
    pub dice: f64,
}

impl Terms {
    pub(super) fn add(&mut self, other: &Terms) {
        self.cross_entropy += other.cross_entropy;
        self.mask += other.mask;
        self.dice += other.dice;
    }

    /// The weighted sum that training minimizes.
    pub fn total(&self, options: &LossOptions) -> f64 {
        let weights = [options.class_weight, options.mask_weight, options.dice_weight].map(f64::from);
        weights[0] * self.cross_entropy + weights[1] * self.mask + weights[2] * self.dice
    }
}

/// Uniform points in the unit square, for: matching `[P]`, candidates `[n, 3P]`, the rest `[n, P - k]`; n matched segments.
pub(super) trait Points {
    fn draw(&mut self, purpose: Purpose, count: usize) -> Vec<[f32; 2]>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Match,
    Candidates,
    Rest,
}

/// Gradients of the weighted sum.
pub(super) struct Gradients {
    /// `[Q, C + 1]`
    pub classes: Vec<f32>,
    /// `[Q, h, w]`
    pub masks: Vec<f32>,
    /// Pairs (query, segment), by query.
    pub matches: Vec<(usize, usize)>,
}

/// The loss of one image: its terms, and the gradients of their weighted sum.
pub(super) fn image_loss(
    prediction: &Prediction,
    targets: &Targets,
    batch: Batch,
    options: &LossOptions,
    points: &mut impl Points,
) -> (Terms, Gradients) {
    let matches = match_queries(prediction, targets, options, &points.draw(Purpose::Match, options.points), &[]);
    matched_loss(prediction, targets, matches, batch, options, points)
}

/// [`image_loss`] with pairs (query, segment) that are known.
pub(super) fn matched_loss(
    prediction: &Prediction,
    targets: &Targets,
    matches: Vec<(usize, usize)>,
    batch: Batch,
    options: &LossOptions,
    points: &mut impl Points,
) -> (Terms, Gradients) {
    let (cross_entropy, classes) = class_loss(prediction, targets, &matches, batch, options);
    let mut gradients = Gradients { classes, masks: vec![0.0; prediction.masks.len()], matches };
    let mut terms = Terms { cross_entropy, ..Terms::default() };
    let area = prediction.plane[0] * prediction.plane[1];
    let target_area = targets.plane[0] * targets.plane[1];
    let ([certain, uniform], candidates) = (options.split(), options.candidates());
    // One draw for all matched masks, then one for the rest: the order of the reference.
    let pools = points.draw(Purpose::Candidates, gradients.matches.len() * candidates);
    let rests = points.draw(Purpose::Rest, gradients.matches.len() * uniform);
    for (place, &(query, segment)) in gradients.matches.iter().enumerate() {
        let plane = &prediction.masks[query * area..][..area];
        let mut chosen = uncertain(plane, prediction.plane, &pools[place * candidates..][..candidates], certain);
        chosen.extend_from_slice(&rests[place * uniform..][..uniform]);
        let here = taps(&chosen, prediction.plane);
        let ground_truth = sample(&targets.masks[segment * target_area..][..target_area], &taps(&chosen, targets.plane));
        let (mask, dice, slope) = mask_loss(&sample(plane, &here), &ground_truth, batch, options);
        terms.mask += mask;
        terms.dice += dice;
        scatter(&slope, &here, &mut gradients.masks[query * area..][..area]);
    }
    (terms, gradients)
}

/// The `count` points whose logits are nearest to 0.
fn uncertain(plane: &[f32], shape: Plane, pool: &[[f32; 2]], count: usize) -> Vec<[f32; 2]> {
    let logits = sample(plane, &taps(pool, shape));
    let mut order: Vec<usize> = (0..pool.len()).collect();
    // Equal ones by place, so that the choice does not depend on the sort.
    let by = |a: &usize, b: &usize| logits[*a].abs().total_cmp(&logits[*b].abs()).then(a.cmp(b));
    if count < order.len() {
        order.select_nth_unstable_by(count, by);
    }
    order[..count].sort_unstable();
    order[..count].iter().map(|&index| pool[index]).collect()
}

/// Terms and gradient at one mask's points: `logits` and `ground_truth` are `[P]`.
fn mask_loss(logits: &[f32], ground_truth: &[f32], batch: Batch, options: &LossOptions) -> (f64, f64, Vec<f32>) {
    let n = logits.len() as f32;
    let mut probabilities = vec![0.0; logits.len()];
    let entropy = rows::sigmoids(logits, &mut probabilities) - f64::from(rows::dot(logits, ground_truth));
    let overlap = rows::dot(&probabilities, ground_truth);
    let sizes: f32 = probabilities.iter().sum::<f32>() + ground_truth.iter().sum::<f32>();
    let (above, below) = (2.0 * overlap + 1.0, sizes + 1.0);
    let dice = 1.0 - above / below;
    let slope = probabilities.iter().zip(ground_truth).map(|(&p, &t)| {
        let of_entropy = options.mask_weight * (p - t) / n;
        let of_dice = -options.dice_weight * (2.0 * t * below - above) / (below * below) * p * (1.0 - p);
        (of_entropy + of_dice) / batch.segments
    });
    let slope = slope.collect();
    (entropy / f64::from(n) / f64::from(batch.segments), f64::from(dice / batch.segments), slope)
}

/// Weighted cross-entropy over all queries of the image, and its gradient.
fn class_loss(
    prediction: &Prediction,
    targets: &Targets,
    matches: &[(usize, usize)],
    batch: Batch,
    options: &LossOptions,
) -> (f64, Vec<f32>) {
    let width = prediction.classes.len() / prediction.queries;
    let mut wanted = vec![width - 1; prediction.queries];
    matches.iter().for_each(|&(query, segment)| wanted[query] = targets.classes[segment]);
    let mut gradient = prediction.classes.to_vec();
    let mut loss = 0.0;
    for (row, wanted) in gradient.chunks_exact_mut(width).zip(wanted) {
        let weight = if wanted == width - 1 { options.no_object_weight } else { 1.0 } / batch.class_weights;
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = row.iter().map(|x| (x - max).exp()).sum();
        loss += f64::from(weight * (total.ln() + max - row[wanted]));
        softmax(row);
        row[wanted] -= 1.0;
        row.iter_mut().for_each(|slope| *slope *= weight * options.class_weight);
    }
    (loss, gradient)
}

/// The assignment of queries to segments with the least cost (Hungarian algorithm), by query. Those that are `used` are the last choice.
pub(super) fn match_queries(
    prediction: &Prediction,
    targets: &Targets,
    options: &LossOptions,
    points: &[[f32; 2]],
    used: &[usize],
) -> Vec<(usize, usize)> {
    let segments = targets.classes.len();
    if segments == 0 {
        return vec![];
    }
    let costs = costs(prediction, targets, options, points);
    // The assignment takes integers: 2^-32 of a cost of some units is below the resolution of f32.
    let whole = |cost: f32| (f64::from(cost.clamp(-1e5, 1e5)) * f64::from(2u32.pow(31)) * 2.0) as i64;
    let by_query = segments > prediction.queries;
    let (rows, columns) = if by_query { (prediction.queries, segments) } else { (segments, prediction.queries) };
    let matrix = Matrix::from_fn(rows, columns, |(row, column)| {
        let (query, segment) = if by_query { (row, column) } else { (column, row) };
        whole(if used.contains(&query) { f32::MAX } else { costs[query * segments + segment] })
    });
    let (_, assigned) = kuhn_munkres_min(&matrix);
    let mut matches: Vec<(usize, usize)> =
        assigned.into_iter().enumerate().map(|(row, column)| if by_query { (row, column) } else { (column, row) }).collect();
    matches.sort_unstable();
    matches
}

/// `[Q, segments]`: minus the probability of the class, binary cross-entropy and dice at shared points, weighted.
fn costs(prediction: &Prediction, targets: &Targets, options: &LossOptions, points: &[[f32; 2]]) -> Vec<f32> {
    let width = prediction.classes.len() / prediction.queries;
    let (area, target_area) = (prediction.plane[0] * prediction.plane[1], targets.plane[0] * targets.plane[1]);
    let (here, there) = (taps(points, prediction.plane), taps(points, targets.plane));
    let ground_truths: Vec<Vec<f32>> = targets.masks.chunks_exact(target_area).map(|mask| sample(mask, &there)).collect();
    let filled: Vec<f32> = ground_truths.iter().map(|mask| mask.iter().sum()).collect();
    let mut probabilities = vec![0.0; points.len()];
    let mut costs = Vec::with_capacity(prediction.queries * ground_truths.len());
    for query in 0..prediction.queries {
        let mut classes = prediction.classes[query * width..][..width].to_vec();
        softmax(&mut classes);
        let logits = sample(&prediction.masks[query * area..][..area], &here);
        // log(1 + e^x) and x: cross-entropy with ground truth t is their difference at weights 1 and t.
        let empty = rows::sigmoids(&logits, &mut probabilities) as f32;
        let size: f32 = probabilities.iter().sum();
        for ((ground_truth, filled), class) in ground_truths.iter().zip(&filled).zip(&targets.classes) {
            let (inside, overlap) = (rows::dot(&logits, ground_truth), rows::dot(&probabilities, ground_truth));
            let entropy = (empty - inside) / points.len() as f32;
            let dice = 1.0 - (2.0 * overlap + 1.0) / (size + filled + 1.0);
            costs.push(options.mask_weight * entropy + options.dice_weight * dice - options.class_weight * classes[*class]);
        }
    }
    costs
}
