//! Deformable attention in standard operators: GridSample on each map, one image for each head.
//!
//! ```text
//! values [1, S, C] ─▶ of each map [heads, C / heads, height, width] ─┐
//! offsets ─▶ places [heads, T, levels * points, 2] ─▶ of each map ───┴─▶ GridSample ─▶ [heads, C / heads, T, points] ─▶ side by side
//! scores ─▶ softmax ─▶ weights [heads, 1, T, levels * points] ─▶ product, sum over the points ─▶ [1, T, C]
//! ```

use crate::chain::{Deformable, Tokens};
use crate::convert::onnx::{Attr, GraphBuilder, Value};

/// Names of nodes start with `name`.
pub(super) fn write(graph: &mut GraphBuilder, name: &str, attention: &Deformable<Value>) -> Tokens<Value> {
    let Deformable { values, offsets, scores, reference, levels, heads, points } = *attention;
    let (count, width, places) = (offsets.count, values.width, levels.len() * points);
    let grid = places_of(graph, name, &offsets.value, attention);
    let (mut start, mut samples) = (0, Vec::new());
    for (index, [height, level_width]) in levels.iter().copied().enumerate() {
        let name = format!("{name}.level{index}");
        let area = height * level_width;
        let map = graph.slice(&format!("{name}.values"), &values.value, 1, start, start + area);
        start += area;
        let map = graph.reshape(&format!("{name}.split"), &map, &[area, heads, width / heads]);
        let map = graph.transpose(&format!("{name}.heads"), &map, &[1, 2, 0]);
        let map = graph.reshape(&format!("{name}.map"), &map, &[heads, width / heads, height, level_width]);
        let at = graph.slice(&format!("{name}.places"), &grid, 2, index * points, (index + 1) * points);
        let attrs = [Attr::Text("mode", "bilinear"), Attr::Text("padding_mode", "zeros"), Attr::Int("align_corners", 0)];
        samples.push(graph.node("GridSample", &format!("{name}.samples"), &[&map, &at], &attrs));
    }
    let samples = match &samples[..] {
        [one] => one.clone(),
        several => graph.node("Concat", &format!("{name}.samples"), &several.iter().collect::<Vec<_>>(), &[Attr::Int("axis", 3)]),
    };
    let split = graph.reshape(&format!("{name}.scores"), &scores.value, &[count, heads, places]);
    let weights = graph.node("Softmax", &format!("{name}.weights"), &[&split], &[Attr::Int("axis", -1)]);
    let weights = graph.transpose(&format!("{name}.weights.heads"), &weights, &[1, 0, 2]);
    let weights = graph.reshape(&format!("{name}.weights.map"), &weights, &[heads, 1, count, places]);
    let weighed = graph.node("Mul", &format!("{name}.weighed"), &[&samples, &weights], &[]);
    let axes = graph.ints(&format!("{name}.sum.axes"), &[3]);
    let sum = graph.node("ReduceSum", &format!("{name}.sum"), &[&weighed, &axes], &[Attr::Int("keepdims", 0)]);
    let sum = graph.transpose(&format!("{name}.tokens"), &sum, &[2, 0, 1]);
    let value = graph.reshape(name, &sum, &[1, count, width]);
    debug_assert_eq!(reference.len(), count);
    Tokens { value, count, width }
}

/// Places in the units of GridSample, -1 to 1 from edge to edge: `2 (reference + offset / side) - 1`, `[heads, T, levels * points, 2]`.
fn places_of(graph: &mut GraphBuilder, name: &str, offsets: &Value, attention: &Deformable<Value>) -> Value {
    let Deformable { reference, levels, heads, points, .. } = *attention;
    let (count, places) = (reference.len(), levels.len() * points);
    let split = graph.reshape(&format!("{name}.offsets"), offsets, &[count, heads, places, 2]);
    let split = graph.transpose(&format!("{name}.offsets.heads"), &split, &[1, 0, 2, 3]);
    let units = levels.iter().flat_map(|[height, width]| [2.0 / *width as f32, 2.0 / *height as f32].repeat(points));
    let units = graph.floats(&format!("{name}.units"), &[1, 1, places, 2], &units.collect::<Vec<f32>>());
    let scaled = graph.node("Mul", &format!("{name}.offsets.scaled"), &[&split, &units], &[]);
    let centres: Vec<f32> = reference.iter().flatten().map(|place| 2.0 * place - 1.0).collect();
    let centres = graph.floats(&format!("{name}.reference"), &[1, count, 1, 2], &centres);
    graph.node("Add", &format!("{name}.places"), &[&scaled, &centres], &[])
}
