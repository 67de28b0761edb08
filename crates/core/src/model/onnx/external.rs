//! Tensors that a file keeps in a second one, as networks of more than 2 GiB must (ONNX, `TensorProto.external_data`): brought into
//! the graph before anything reads it.
//!
//! Refuses: locations outside of the model's directory; opening files, which the caller's [`ExternalData`] does.

use std::path::{Component, Path};

use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::{GraphProto, TensorProto};

use crate::model::ModelError;

/// Reads the files beside a model.
pub trait ExternalData: std::fmt::Debug {
    /// `length` bytes of the file `location` from `offset` on; all that follow when there is no length.
    ///
    /// `location` is relative to the model's directory and has no `..` in it.
    ///
    /// # Errors
    /// Why they cannot be read: the end of a sentence that begins with the tensor's name.
    fn read(&self, location: &Path, offset: u64, length: Option<u64>) -> Result<Vec<u8>, String>;
}

/// Fills in every tensor of `graph` and of the graphs in it that lies outside.
///
/// # Errors
/// [`ModelError::Unsupported`] with the tensor by name.
pub fn bring_in(graph: &mut GraphProto, data: Option<&dyn ExternalData>) -> Result<(), ModelError> {
    for tensor in &mut graph.initializer {
        bring_in_tensor(tensor, data)?;
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        if let Some(tensor) = &mut attribute.t {
            bring_in_tensor(tensor, data)?;
        }
        if let Some(inner) = &mut attribute.g {
            bring_in(inner, data)?;
        }
    }
    Ok(())
}

fn bring_in_tensor(tensor: &mut TensorProto, data: Option<&dyn ExternalData>) -> Result<(), ModelError> {
    if tensor.data_location != Some(DataLocation::External as i32) {
        return Ok(());
    }
    let refused = |reason: String| ModelError::Unsupported { reason: format!("the tensor '{}' {reason}", tensor.name) };
    tensor.raw_data = read(tensor, data).map_err(refused)?;
    tensor.external_data.clear();
    tensor.data_location = None;
    Ok(())
}

/// The bytes of a tensor that lies in a second file.
fn read(tensor: &TensorProto, data: Option<&dyn ExternalData>) -> Result<Vec<u8>, String> {
    let entry = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let number = |key: &str| entry(key).map(|text| text.parse::<u64>().map_err(|_| format!("says {key} '{text}' of its data"))).transpose();
    let location = Path::new(entry("location").ok_or("does not say in which file it lies")?);
    if location.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("lies outside of the model's directory, in {}", location.display()));
    }
    let data = data.ok_or("lies in a second file, and there is no directory to look in")?;
    data.read(location, number("offset")?.unwrap_or(0), number("length")?)
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{AttributeProto, NodeProto, StringStringEntryProto};

    use super::*;

    /// One file of ten bytes.
    #[derive(Debug)]
    struct Ten;

    impl ExternalData for Ten {
        fn read(&self, location: &Path, offset: u64, length: Option<u64>) -> Result<Vec<u8>, String> {
            let bytes: Vec<u8> = (0..10).collect();
            let start = offset as usize;
            let end = length.map_or(10, |length| start + length as usize);
            match location.to_str() {
                Some("ten.data") => bytes.get(start..end).map(<[u8]>::to_vec).ok_or("lies behind the end of ten.data".to_owned()),
                other => Err(format!("cannot be read from {other:?}")),
            }
        }
    }

    fn tensor(entries: &[(&str, &str)]) -> TensorProto {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto { key: key.to_string(), value: value.to_string() };
        TensorProto {
            name: "weights".to_owned(),
            data_location: Some(DataLocation::External as i32),
            external_data: entries.iter().map(entry).collect(),
            ..TensorProto::default()
        }
    }

    #[test]
    fn tensors_outside_come_in_wherever_they_are() {
        let outside = || tensor(&[("location", "ten.data"), ("offset", "4"), ("length", "3")]);
        let rest = tensor(&[("location", "ten.data"), ("offset", "8")]);
        let attribute = |tensor| AttributeProto { t: Some(tensor), ..AttributeProto::default() };
        let inner = GraphProto { initializer: vec![outside()], ..GraphProto::default() };
        let branch = AttributeProto { g: Some(inner), ..AttributeProto::default() };
        let node = NodeProto { attribute: vec![attribute(rest), branch], ..NodeProto::default() };
        let mut graph = GraphProto { initializer: vec![outside()], node: vec![node], ..GraphProto::default() };
        bring_in(&mut graph, Some(&Ten)).expect("readable");
        let attributes = &graph.node[0].attribute;
        let inner = &attributes[1].g.as_ref().expect("a graph").initializer[0];
        let found = [&graph.initializer[0], attributes[0].t.as_ref().expect("a tensor"), inner];
        assert_eq!(found.map(|tensor| tensor.raw_data.as_slice()), [&[4, 5, 6][..], &[8, 9], &[4, 5, 6]]);
        assert!(found.iter().all(|tensor| tensor.data_location.is_none() && tensor.external_data.is_empty()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let ten: Option<&dyn ExternalData> = Some(&Ten);
        for (entries, data, reason) in [
            (&[("location", "../ten.data")][..], ten, "lies outside of the model's directory, in ../ten.data"),
            (&[("location", "/etc/passwd")], ten, "lies outside"),
            (&[("location", "ten.data"), ("offset", "8"), ("length", "3")], ten, "behind the end"),
            (&[("location", "ten.data"), ("offset", "-8")], ten, "says offset '-8'"),
            (&[("location", "eleven.data")], ten, "cannot be read"),
            (&[], ten, "does not say in which file"),
            (&[("location", "ten.data")], None, "there is no directory to look in"),
        ] {
            let mut graph = GraphProto { initializer: vec![tensor(entries)], ..GraphProto::default() };
            let sentence = bring_in(&mut graph, data).expect_err("refused").to_string();
            assert!(sentence.contains("'weights'") && sentence.contains(reason), "{sentence}");
        }
    }
}
