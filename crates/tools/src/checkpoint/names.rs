//! Names of tensors without the prefixes of wrappers, the same for every kind of file.
//!
//! ```text
//! module._orig_mod.network.q.weight   q.weight             authors
//! model.eomt.query.weight             query.weight         transformers
//! model.backbone.cls_token            backbone.cls_token   LightlyTrain
//! ```
//!
//! The prefix is not guessed: it is the text before the queries and the class head. Invariant: the reader reports it when it drops one of
//! two tensors that would have the same name.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{CheckpointError, quote};
use super::tensors::Tensors;

/// The code base whose names the tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Authors,
    Transformers,
    Lightly,
}

/// Queries and class head of each layout.
const ANCHORS: [(&str, &str, Layout); 3] = [
    ("q.weight", "class_head.weight", Layout::Authors),
    ("query.weight", "class_predictor.weight", Layout::Transformers),
    ("queries.weight", "class_head.weight", Layout::Lightly),
];

/// Wrappers that may stand anywhere in a name: torch.compile, (distributed) data parallel, checkpointing.
const INSIDE: [&str; 6] =
    ["_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_compiled_module"];

/// Wrappers before a name, for files in which queries or class head are missing: so that the error names the right tensor.
const BEFORE: [&str; 12] = [
    "model.",
    "network.",
    "net.",
    "eomt.",
    "ema.",
    "ema_model.",
    "model_ema.",
    "state_dict.",
    "online_model.",
    "averaged_model.",
    "pl_module.",
    "teacher.",
];

/// Counters that averaging and training loops keep as tensors beside the weights.
const COUNTERS: [&str; 8] =
    ["n_averaged", "initted", "step", "num_updates", "decay", "global_step", "criterion.empty_weight", "num_batches_tracked"];

/// Drops the wrappers inside of a name.
fn plain(name: &str) -> String {
    name.split('.').filter(|part| !INSIDE.contains(part)).collect::<Vec<_>>().join(".")
}

/// The prefixes of the networks in these names; empty when there is no network. Names may still have their wrappers.
pub(super) fn prefixes<'a>(names: impl Iterator<Item = &'a str> + Clone) -> BTreeSet<String> {
    let is_anchor = |name: &str| ANCHORS.iter().any(|(query, head, _)| name.ends_with(query) || name.ends_with(head));
    let names: BTreeSet<String> = names.filter(|name| is_anchor(name)).map(plain).collect();
    let prefix_of = |name: &String| {
        ANCHORS.iter().find_map(|(query, head, _)| {
            let prefix = name.strip_suffix(query).filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))?;
            names.contains(&format!("{prefix}{head}")).then(|| prefix.to_string())
        })
    };
    names.iter().filter_map(prefix_of).collect()
}

/// The layout of names without wrappers.
pub(super) fn layout(tensors: &Tensors) -> Option<Layout> {
    let anchored = ANCHORS.iter().find(|(query, head, _)| tensors.has(query) && tensors.has(head)).map(|(_, _, layout)| *layout);
    let starts = |prefix: &str| tensors.entries.keys().any(|name| name.starts_with(prefix));
    anchored.or_else(|| match () {
        () if starts("encoder.") => Some(Layout::Authors),
        () if starts("backbone.") && tensors.has("queries.weight") => Some(Layout::Lightly),
        () if starts("embeddings.") && starts("layers.") => Some(Layout::Transformers),
        () => None,
    })
}

/// Which of several states to take: the one that the user names, the only one, or the only averaged one (with a warning).
///
/// # Errors
/// The rest of a sentence that begins with the file's name.
pub(super) fn choose(paths: &[&str], wanted: Option<&str>, warnings: &mut Vec<String>) -> Result<usize, String> {
    let shown = |path: &str| if path.is_empty() { "'' (its top)".to_string() } else { format!("'{}'", quote(path)) };
    let list = || paths.iter().map(|path| shown(path)).collect::<Vec<_>>().join(", ");
    if let [_] = paths {
        return Ok(0);
    }
    if let Some(wanted) = wanted {
        let same = |path: &str| path.trim_end_matches('.') == wanted.trim_end_matches('.');
        let problem = || format!("holds the states {}, and the hints ask for '{}' as 'state'", list(), quote(wanted));
        return paths.iter().position(|path| same(path)).ok_or_else(problem);
    }
    let averaged: Vec<usize> = (0..paths.len()).filter(|index| is_averaged(paths[*index])).collect();
    match averaged[..] {
        [index] => {
            warnings.push(format!(
                "the file holds the states {}; the averaged weights are taken, {}; name another one as 'state' in the hints",
                list(),
                shown(paths[index])
            ));
            Ok(index)
        }
        _ => Err(format!("holds the states {}; name the one to take as 'state' in the hints", list())),
    }
}

/// Whether a path names a moving average.
fn is_averaged(path: &str) -> bool {
    path.to_ascii_lowercase().split(|c: char| !c.is_ascii_alphanumeric()).any(|word| ["ema", "swa", "averaged"].contains(&word))
}

/// Gives every tensor its plain name and drops the states that are not used.
///
/// # Errors
/// For several states of which none is named, or two tensors of one name.
pub(super) fn normalize(tensors: &mut Tensors, wanted: Option<&str>) -> Result<(), CheckpointError> {
    let prefixes: Vec<String> = prefixes(tensors.entries.keys().map(|name| &name[..])).into_iter().collect();
    let chosen = match prefixes.len() {
        0 => None,
        _ => {
            let paths: Vec<&str> = prefixes.iter().map(|prefix| &prefix[..]).collect();
            let chosen =
                choose(&paths, wanted, &mut tensors.warnings).map_err(|said| CheckpointError::State(tensors.path.clone(), said))?;
            Some(&prefixes[chosen])
        }
    };
    let mut entries = BTreeMap::new();
    for (name, entry) in std::mem::take(&mut tensors.entries) {
        let plain = plain(&name);
        let name = match chosen {
            None => strip_known(&plain).to_string(),
            Some(chosen) => {
                let owner = prefixes.iter().filter(|prefix| plain.starts_with(&prefix[..])).max_by_key(|prefix| prefix.len());
                match owner {
                    Some(owner) if owner != chosen => continue,
                    _ => plain.strip_prefix(&chosen[..]).unwrap_or(&plain).to_string(),
                }
            }
        };
        if COUNTERS.iter().any(|counter| name == *counter || name.strip_suffix(counter).is_some_and(|rest| rest.ends_with('.'))) {
            continue;
        }
        let twice = format!("tensor '{}' is in it twice, also under another prefix", quote(&entry.name));
        if entries.insert(name, entry).is_some() {
            return Err(CheckpointError::layout(&tensors.path, twice));
        }
    }
    tensors.entries = entries;
    Ok(())
}

fn strip_known(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = BEFORE.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name
}
