//! What a network may be at most, in one place. A file that says more is refused before anything is computed from it.
//!
//! | what | at most | why |
//! |---|---|---|
//! | side of the input | [`INPUT_SIDE_MAX`] | three times the side of the largest published EoMT, 1280 |
//! | queries, classes | 65534, 65535 | 16-bit ids of the id map, of which 0 means nothing |
//! | a mask | the input | EoMT's are a quarter of its side |
//! | values of all masks | [`MASK_VALUES_MAX`] | 1 GiB of logits |
//! | values of one tensor | [`TENSOR_VALUES_MAX`] | 8 GiB, more than a board has |
//! | text of the labels | [`LABEL_BYTES_MAX`] | it is copied to every reader of the ring |
//!
//! Refuses: guessing what a machine can hold; the caller finds that out by trying.

use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, type_proto};

/// The longest side of an input, pixels.
pub const INPUT_SIDE_MAX: usize = 4096;

/// Values of all mask logits together.
pub const MASK_VALUES_MAX: usize = 1 << 28;

/// Values of one tensor: of the file, or between two operators.
pub const TENSOR_VALUES_MAX: usize = 1 << 31;

/// Bytes of all class names together.
pub const LABEL_BYTES_MAX: usize = 1 << 20;

/// Standard deviations, and the mean's magnitude: what pixel values of any unit need, and far from where f32 overflows.
const NORMALIZATION: std::ops::RangeInclusive<f32> = 1e-6..=1e6;

/// Text from a file, fit for a sentence: one line, at most 60 characters.
pub fn short(text: &str) -> String {
    one_line(text, 60)
}

/// The same with at most `most` characters.
pub fn one_line(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Errors: why no input has `size`, (height, width).
pub fn check_input((height, width): (usize, usize)) -> Result<(), String> {
    if !(1..=INPUT_SIDE_MAX).contains(&height) || !(1..=INPUT_SIDE_MAX).contains(&width) {
        return Err(format!("{height}x{width} is no size of an input: sides are 1 to {INPUT_SIDE_MAX} pixels"));
    }
    Ok(())
}

/// Errors: why nothing is normalized by these.
pub fn check_normalization(mean: [f32; 3], std: [f32; 3]) -> Result<(), String> {
    let mean_fits = mean.iter().all(|mean| mean.abs() <= *NORMALIZATION.end());
    match mean_fits && std.iter().all(|std| NORMALIZATION.contains(std)) {
        true => Ok(()),
        false => Err(format!("mean {mean:?} and std {std:?} cannot normalize: a std lies between 1e-6 and 1e6, a mean within 1e6")),
    }
}

/// Errors: why these are no class names.
pub fn check_labels(labels: &[String]) -> Result<(), String> {
    let bytes: usize = labels.iter().map(String::len).sum();
    if labels.len() >= usize::from(u16::MAX) || bytes > LABEL_BYTES_MAX {
        return Err(format!("{} names of {bytes} bytes are too many: at most 65534 and {LABEL_BYTES_MAX} bytes", labels.len()));
    }
    Ok(())
}

/// Number of values of a shape.
///
/// Errors: a negative or absurd one.
pub fn values(dims: &[i64]) -> Result<usize, String> {
    let product = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?));
    product.filter(|values| *values <= TENSOR_VALUES_MAX).ok_or_else(|| format!("has the shape {:?}", &dims[..dims.len().min(8)]))
}

/// Errors: why these are not the outputs of an EoMT, `[1, queries, classes]` and `[1, queries, height, width]`.
pub fn check_outputs(class: &[usize], masks: &[usize], (height, width): (usize, usize)) -> Result<(), String> {
    let ([1, queries, classes], [1, mask_queries, rows, columns]) = (class, masks) else {
        return Err(format!("its class logits have the shape {class:?}, its mask logits {masks:?}"));
    };
    if queries != mask_queries {
        return Err(format!("its class logits have {queries} queries, its mask logits {mask_queries}"));
    }
    if *queries == 0 {
        return Err("it has no queries".to_owned());
    }
    if *classes < 2 {
        return Err(format!("its class logits score {classes} classes; one and 'no object' are the least"));
    }
    if *queries >= usize::from(u16::MAX) || *classes > usize::from(u16::MAX) {
        return Err(format!("{queries} queries and {classes} classes do not fit the 16-bit ids of the id map"));
    }
    if *rows == 0 || *columns == 0 || *rows > height || *columns > width {
        return Err(format!(
            "its masks are {rows}x{columns}; they have at least one pixel and at most those of the input, {height}x{width}"
        ));
    }
    if rows * columns > MASK_VALUES_MAX / queries {
        return Err(format!("{queries} masks of {rows}x{columns} are more than {MASK_VALUES_MAX} values"));
    }
    Ok(())
}

/// Errors: why this is no height, or no width, of what the graph says it takes: another size, or one that its patches do not divide.
pub fn check_graph(graph: &GraphProto, input: &str, size: (usize, usize)) -> Result<(), String> {
    let (height, width) = size;
    if let Some([rows, columns]) = declared(graph, input)
        && (rows.is_some_and(|rows| rows != height as i64) || columns.is_some_and(|columns| columns != width as i64))
    {
        let side = |side: Option<i64>| side.map_or_else(|| "?".to_owned(), |side| side.to_string());
        return Err(format!("it is {height}x{width}, but the network's input takes {}x{}", side(rows), side(columns)));
    }
    match patch(graph, input) {
        Some((rows, columns)) if height % rows != 0 || width % columns != 0 => {
            Err(format!("{height}x{width} is not a multiple of the network's patches, {rows}x{columns} pixels"))
        }
        _ => Ok(()),
    }
}

/// Height and width of an input of four axes, where the file fixes them.
fn declared(graph: &GraphProto, input: &str) -> Option<[Option<i64>; 2]> {
    let value = graph.input.iter().find(|value| value.name == input)?;
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref()?.value.as_ref() else { return None };
    let [_, _, rows, columns] = &tensor.shape.as_ref()?.dim[..] else { return None };
    Some([rows, columns].map(|dim| match dim.value {
        Some(DimValue::DimValue(size)) => Some(size),
        _ => None,
    }))
}

/// What may stand between the pixel values and the patches: normalization, a change of type.
const BEFORE_PATCHES: [&str; 7] = ["Identity", "Cast", "Sub", "Add", "Mul", "Div", "BatchNormalization"];

/// (height, width) of a patch: of the first convolution of the pixel values, if it goes in steps of its own size.
fn patch(graph: &GraphProto, input: &str) -> Option<(usize, usize)> {
    let mut reached = vec![input];
    for node in &graph.node {
        if !node.input.iter().any(|name| reached.contains(&name.as_str())) {
            continue;
        }
        match node.op_type.as_str() {
            "Conv" => return steps(graph, node),
            kind if BEFORE_PATCHES.contains(&kind) => reached.extend(node.output.iter().map(String::as_str)),
            _ => return None,
        }
    }
    None
}

fn steps(graph: &GraphProto, node: &NodeProto) -> Option<(usize, usize)> {
    let ints =
        |name: &str| node.attribute.iter().find(|attribute| attribute.name == name).map(|AttributeProto { ints, .. }| ints.as_slice());
    let weights = graph.initializer.iter().find(|tensor| Some(&tensor.name) == node.input.get(1));
    let kernel = ints("kernel_shape").or_else(|| weights?.dims.get(2..4))?;
    let padded = ints("pads").is_some_and(|pads| pads.iter().any(|pad| *pad != 0));
    match (kernel, ints("strides")) {
        (&[rows, columns], Some(strides)) if strides == kernel && !padded => {
            let side = |side: i64| usize::try_from(side).ok().filter(|side| *side > 0);
            side(rows).zip(side(columns))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_inputs() {
        for (size, fits) in [((640, 480), true), ((4096, 1), true), ((0, 64), false), ((65536, 65536), false), ((usize::MAX, 2), false)] {
            assert_eq!(check_input(size).is_ok(), fits, "{size:?}");
        }
    }

    #[test]
    fn shapes_that_overflow_are_no_shapes() {
        assert_eq!(values(&[]), Ok(1));
        assert_eq!(values(&[2, 0, 5]), Ok(0));
        for dims in [&[-1][..], &[i64::MAX, 3], &[1 << 32, 1 << 32], &[1 << 20, 1 << 20]] {
            assert!(values(dims).is_err(), "{dims:?}");
        }
    }

    #[test]
    fn outputs_fit_each_other_and_the_input() {
        let outputs = |class: [usize; 3], masks: [usize; 4]| check_outputs(&class, &masks, (64, 96));
        assert_eq!(outputs([1, 5, 4], [1, 5, 16, 24]), Ok(()));
        for (class, masks, reason) in [
            ([1, 0, 4], [1, 0, 16, 24], "no queries"),
            ([1, 5, 1], [1, 5, 16, 24], "1 classes"),
            ([1, 5, 0], [1, 5, 16, 24], "0 classes"),
            ([1, 5, 4], [1, 6, 16, 24], "5 queries"),
            ([1, 5, 4], [1, 5, 0, 24], "0x24"),
            ([1, 5, 4], [1, 5, 65, 24], "65x24"),
            ([1, 5, 4], [1, 5, usize::MAX, usize::MAX], "at most those of the input"),
            ([1, 65535, 4], [1, 65535, 16, 24], "16-bit"),
            ([2, 5, 4], [1, 5, 16, 24], "[2, 5, 4]"),
        ] {
            let sentence = outputs(class, masks).expect_err("refused");
            assert!(sentence.contains(reason), "{sentence}");
        }
        let sentence = check_outputs(&[1, 60000, 2], &[1, 60000, 1024, 1024], (4096, 4096)).expect_err("refused");
        assert!(sentence.contains("values"), "{sentence}");
    }

    #[test]
    fn normalization_divides_by_a_number() {
        assert!(check_normalization([0.5; 3], [0.2; 3]).is_ok());
        assert!(check_normalization([123.0; 3], [58.0; 3]).is_ok());
        for (mean, std) in
            [(0.5, 0.0), (0.5, -1.0), (0.5, f32::NAN), (f32::NAN, 1.0), (f32::INFINITY, 1.0), (0.5, f32::INFINITY), (0.0, 1e-40)]
        {
            assert!(check_normalization([0.5, mean, 0.5], [1.0, std, 1.0]).is_err(), "{mean} {std}");
        }
    }
}
