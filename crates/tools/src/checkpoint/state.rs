//! Finds the state in a pickle: the pickle itself, or an entry of it (`state_dict`, `model`,
//! `model_state_dict`, `train_model`, `ema` …), however deep.
//!
//! A state is recognized by its tensors, not by its key: it holds the queries and the class head of an EoMT network.
//! Invariant: with several of them, the choice is reported (averaged weights before those of the last step).
//! Refuses: a state with entries other than plain tensors.

use std::collections::HashSet;

use eomt_edge_host::bounds::{NAME_BYTES_MAX, PICKLE_DICTIONARIES_MAX, TENSORS_MAX};

use super::error::quote;
use super::meta::{self, Data};
use super::names;
use super::opcodes;
use super::pickle::{Fault, Machine, Value, View, bad};

/// Levels of dictionaries that are searched.
const DEPTH_MAX: usize = 4;

/// The contents of a pickle.
#[derive(Debug)]
pub(super) struct Pickled {
    /// In the order of the file.
    pub tensors: Vec<(String, View)>,
    /// Everything beside the state.
    pub meta: Data,
    pub warnings: Vec<String>,
}

/// A dictionary that holds tensors.
struct Candidate {
    /// Its keys from the root, joined by dots; empty = the root.
    path: String,
    value: Value,
    tensors: usize,
    is_network: bool,
}

/// Reads a pickle. `wanted` is the path of the state to take, when the user names one.
pub(super) fn read(bytes: &[u8], wanted: Option<&str>) -> Result<Pickled, Fault> {
    let (machine, root) = opcodes::load(bytes)?;
    match root {
        Value::Dict(_) => {}
        Value::Object(at) => return Err(Fault::Call(machine.texts[machine.objects[at].class].clone())),
        Value::Unknown(name) => return Err(Fault::Call(machine.texts[name].clone())),
        _ => return bad("does not describe a dictionary of tensors"),
    }
    let candidates = candidates(&machine, root)?;
    let networks: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.is_network).collect();
    let mut warnings = vec![];
    let chosen = if networks.is_empty() {
        // Missing tensors are named later; the largest dictionary is the likeliest state.
        candidates.iter().filter(|candidate| !candidate.path.contains("optim")).max_by_key(|candidate| candidate.tensors)
    } else {
        let paths: Vec<&str> = networks.iter().map(|candidate| &candidate.path[..]).collect();
        let chosen = names::choose(&paths, wanted, &mut warnings).map_err(Fault::State)?;
        Some(networks[chosen])
    };
    let Some(chosen) = chosen else {
        let class = machine.objects.first().map(|object| machine.texts[object.class].clone());
        return class.map_or_else(|| Ok(Pickled { tensors: vec![], meta: Data::Null, warnings: vec![] }), |class| Err(Fault::Call(class)));
    };
    let tensors = tensors_of(&machine, chosen.value)?;
    let skip = if let Value::Dict(at) = chosen.value { Some(at) } else { None };
    // The root may be the state and hold other entries too.
    let skip = skip.filter(|_| chosen.value != root);
    Ok(Pickled { tensors, meta: meta::of_value(&machine, root, skip), warnings })
}

/// Every dictionary with tensors that text keys lead to, nearest first.
///
/// # Errors
/// When there are more dictionaries than any checkpoint has.
fn candidates(machine: &Machine, root: Value) -> Result<Vec<Candidate>, Fault> {
    let mut found = vec![];
    let mut seen = HashSet::new();
    let mut level = vec![(String::new(), root)];
    for _ in 0..DEPTH_MAX {
        let mut next = vec![];
        for (path, value) in level {
            let pairs = machine.pairs(value).unwrap_or_default();
            let mut names = vec![];
            for (key, value) in pairs {
                let Value::Text(key) = key else { continue };
                let key = &machine.texts[*key];
                let (dict, is_object) = match value {
                    Value::Tensor(_) => {
                        names.push(&key[..]);
                        continue;
                    }
                    Value::Dict(at) => (*at, false),
                    Value::Object(at) => (machine.objects[*at].dict, true),
                    _ => continue,
                };
                if key.len() <= NAME_BYTES_MAX && seen.insert((dict, is_object)) {
                    if seen.len() > PICKLE_DICTIONARIES_MAX {
                        return bad(format!("holds more than {PICKLE_DICTIONARIES_MAX} dictionaries"));
                    }
                    next.push((if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, *value));
                }
            }
            if !names.is_empty() {
                let is_network = !names::prefixes(names.iter().copied()).is_empty();
                found.push(Candidate { path, value, tensors: names.len(), is_network });
            }
        }
        level = next;
    }
    Ok(found)
}

/// The tensors of a state, in the order of the file.
///
/// # Errors
/// When an entry of the state is an object other than a tensor, or there are more tensors or longer names than any network has.
fn tensors_of(machine: &Machine, state: Value) -> Result<Vec<(String, View)>, Fault> {
    let mut tensors = vec![];
    for (key, value) in machine.pairs(state).unwrap_or_default() {
        let Value::Text(key) = key else { continue };
        let key = &machine.texts[*key];
        match value {
            Value::Tensor(_) if key.len() > NAME_BYTES_MAX => return bad(format!("has a tensor whose name has {} bytes", key.len())),
            Value::Tensor(_) if tensors.len() == TENSORS_MAX => return bad(format!("has more than {TENSORS_MAX} tensors")),
            Value::Tensor(tensor) => tensors.push((key.clone(), machine.tensors[*tensor].clone())),
            Value::Object(at) if key.contains('.') && !key.ends_with("_extra_state") => {
                let class = &machine.texts[machine.objects[*at].class];
                let advice = "save the state as plain float tensors with torch.save";
                return Err(Fault::State(format!("holds '{}' as {class}, which is no plain tensor; {advice}", quote(key))));
            }
            _ => {}
        }
    }
    Ok(tensors)
}
