//! Token merging against what it stands for, computed plainly: a token that counts n times is n equal tokens.
//!
//! The plain network keeps all patches. Where tokens merge, those of a group all become its mean, and what each differs by is kept and
//! added again at the end. Nothing there has a size, a bias or fewer rows.

use eomt_edge_core::data::{Logits, Tensor, TokenMerging};

use super::*;
use crate::checkpoint::tests::forward::{Rows, run_with};

/// Groups of patches: the quadtree in doubles, on keys that are not rounded. Each of `groups` stays whole.
fn quadtree(mut groups: Vec<Vec<usize>>, keys: &[Vec<f64>], [height, width]: [usize; 2], count: usize) -> Vec<Vec<usize>> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // only directions count, but sums are of keys scaled to one largest value
    let scaled = |key: &Vec<f64>| -> Vec<f64> {
        let largest = key.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        key.iter().map(|value| value / largest).collect()
    };
    let keys: Vec<Vec<f64>> = keys.iter().map(scaled).collect();
    let mut cells: Vec<(f64, Vec<usize>)> = Vec::new();
    for side in [2, 4, 8] {
        for (top, left) in (0..height).step_by(side).flat_map(|y| (0..width).step_by(side).map(move |x| (y, x))) {
            let inside = |patch: &usize| (top..top + side).contains(&(patch / width)) && (left..left + side).contains(&(patch % width));
            let patches: Vec<usize> = (0..height * width).filter(inside).collect();
            let sum: Vec<f64> = (0..keys[0].len()).map(|i| patches.iter().map(|patch| keys[*patch][i]).sum()).collect();
            let cost = |patch: &usize| 1.0 - dot(&keys[*patch], &sum) / (dot(&keys[*patch], &keys[*patch]) * dot(&sum, &sum)).sqrt();
            let own = patches.iter().map(cost).fold(0.0, f64::max);
            let parts = cells.iter().filter(|(_, part)| part.iter().all(|patch| patches.contains(patch)));
            cells.push((parts.map(|(cost, _)| *cost).fold(own, f64::max), patches));
        }
    }
    cells.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable: smaller cells first
    for (_, patches) in cells {
        for patch in &patches[1..] {
            let at = |patch: usize| groups.iter().position(|group| group.contains(&patch)).expect("every patch has a group");
            let (into, from) = (at(patches[0]), at(*patch));
            if into != from && groups.len() > count {
                let joined = groups[from].clone();
                groups[into].extend(joined);
                groups.remove(from);
            }
        }
    }
    groups
}

/// Class logits and masks of all queries.
fn plain(network: &Network, pixels: &[f32], steps: &[(usize, usize)]) -> (Vec<f32>, Vec<f32>) {
    let grid = [0, 1].map(|i| network.image_size[i] / network.patch_size[i]);
    let patches = grid[0] * grid[1];
    let head = network.hidden / network.heads;
    let mut groups: Vec<Vec<usize>> = (0..patches).map(|patch| vec![patch]).collect();
    let mut differences: Rows = vec![vec![0.0; network.hidden]; patches];
    let differ = std::cell::RefCell::new(&mut differences);
    let merge = |block: usize, x: &mut Rows, keys: &Rows| {
        let Some((_, count)) = steps.iter().find(|step| step.0 == block) else { return };
        let summed = |key: &Vec<f32>| (0..head).map(|i| key.iter().skip(i).step_by(head).map(|v| f64::from(*v)).sum()).collect();
        let keys: Vec<Vec<f64>> = keys[keys.len() - patches..].iter().map(summed).collect();
        groups = quadtree(std::mem::take(&mut groups), &keys, grid, *count);
        assert_eq!(groups.len(), *count);
        let start = x.len() - patches;
        for group in &groups {
            let mean = |channel: usize| group.iter().map(|patch| x[start + patch][channel]).sum::<f32>() / group.len() as f32;
            let mean: Vec<f32> = (0..network.hidden).map(mean).collect();
            for patch in group {
                let (token, mut differences) = (&mut x[start + patch], differ.borrow_mut());
                token.iter().zip(&mean).zip(&mut differences[*patch]).for_each(|((value, mean), difference)| *difference += value - mean);
                token.copy_from_slice(&mean);
            }
        }
    };
    let restore = |x: &mut Rows| {
        let start = x.len() - patches;
        for (token, difference) in x[start..].iter_mut().zip(differ.borrow().iter()) {
            token.iter_mut().zip(difference).for_each(|(value, difference)| *value += difference);
        }
    };
    let (classes, masks) = run_with(network, pixels, merge, restore);
    (classes.concat(), masks.concat())
}

#[test]
fn merged_networks_compute_what_their_equations_say() {
    let cases = [
        ("dinov2", "0.4@1", vec![(1, 22)]),
        ("dinov2", "0.75@2", vec![(2, 9)]),
        ("dinov2", "0.3@1,0.8@2", vec![(1, 25), (2, 7)]),
        ("dinov2-swiglu", "0.5@1", vec![(1, 18)]),
        ("dinov2-patch8", "0.95@2", vec![(2, 3)]),
    ];
    for (case, merging, steps) in cases {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("tests/data/reference").join(case);
        let checkpoint = checkpoint::read(&directory, &Options { hints: None, base: None }).expect("reads");
        let metadata = describe(&Subject::new(&checkpoint), &ConvertOptions::default(), &mut Vec::new()).expect("describes");
        let (network, (height, width)) = (checkpoint.network, metadata.input_size);
        // a slope, a disc and some texture: patches that are alike, and some that are not
        let value = |i: usize| {
            let (channel, y, x) = (i / (height * width), i / width % height, i % width);
            let disc = if (y as f32 - 40.0).hypot(x as f32 - 30.0) < 22.0 { 1.5 } else { -0.5 };
            disc + 0.3 * channel as f32 + x as f32 / 150.0 + ((i * 7919 % 255) as f32 - 127.0) / 400.0
        };
        let values: Vec<f32> = (0..3 * height * width).map(value).collect();
        let (classes, masks) = plain(&network, &values, &steps);
        let bytes = onnx::encode(graph::build(network, (height, width), Form::Float).graph.finish("test", metadata.to_props()));
        let merging: TokenMerging = merging.parse().expect("fits");
        let mut model = Model::load(&bytes, &LoadOptions { merging, ..LoadOptions::default() }).expect("loads");
        let mut logits = Logits::default();
        model.run(&Tensor { height, width, values }, |class, kept| kept.extend(0..class.queries), &mut logits).expect("runs");
        // f32 sums in another order, on logits of up to 15
        assert!(largest_difference(&logits.class.values, &classes) < 1e-3, "{case} {merging}");
        assert!(largest_difference(&logits.masks, &masks) < 1e-3, "{case} {merging}");
    }
}
