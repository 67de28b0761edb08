//! The entries that Lightning writes into a `.ckpt` beside the state: the `hyper_parameters` of the authors' training module.
//!
//! ```text
//! {'state_dict': …, 'hyper_parameters': {'img_size': (640, 640), 'num_classes': 133, 'stuff_classes': [80, …],
//!  'network': EoMT(…) or {'class_path': 'models.eomt.EoMT', 'init_args': {'num_q': 200, …}}}}
//! ```
//!
//! `network` is the pickled object when the module was made in Python, and its arguments when it came from the command line.

use eomt_edge_core::data::Task;

use super::error::CheckpointError;
use super::hints::{self, Hints};
use super::meta::{Data, Meta};

const ROOT: &str = "hyper_parameters";

/// Fills the hints in.
///
/// # Errors
/// When a hint of the user differs, or a value is impossible.
pub(super) fn fill(hints: &mut Hints, meta: &Meta) -> Result<(), CheckpointError> {
    let Some(hyper) = meta.get(ROOT) else { return Ok(()) };
    let file = hints.file.clone();
    let key = |name: &str| format!("{ROOT}.{name}");
    let network = |name: &str| {
        let paths = ["network.init_args.", "network."].map(|path| key(&format!("{path}{name}")));
        paths.into_iter().find(|path| meta.get(path).is_some()).unwrap_or_default()
    };
    hints::fill(&file, &mut hints.image_size, "image_size", meta.pair(&key("img_size"))?, &key("img_size"))?;
    hints::fill(&file, &mut hints.num_labels, "num_labels", meta.positive(&key("num_classes"))?, &key("num_classes"))?;
    let (queries, blocks, masked) = (network("num_q"), network("num_blocks"), network("masked_attn_enabled"));
    hints::fill(&file, &mut hints.num_queries, "num_queries", meta.positive(&queries)?, &queries)?;
    hints::fill(&file, &mut hints.num_blocks, "num_blocks", meta.positive(&blocks)?, &blocks)?;
    // Enabled, the probabilities in the weights decide; disabled, they are 1 and mean nothing.
    let off = meta.flag(&masked)?.filter(|enabled| !enabled);
    hints::fill(&file, &mut hints.masked_attention, "masked_attention", off, &masked)?;
    let mut stuff = meta.sizes(&key("stuff_classes"))?;
    if let Some(stuff) = &mut stuff {
        stuff.sort_unstable();
        stuff.dedup();
    }
    if let Some(hint) = &mut hints.stuff_classes {
        hint.sort_unstable();
        hint.dedup();
    }
    // Only the panoptic module takes stuff classes, only the semantic one an index to ignore.
    let task = match () {
        () if stuff.is_some() => Some(Task::Panoptic),
        () if hyper.get("ignore_idx").is_some() => Some(Task::Semantic),
        () if hyper.get("eval_top_k_instances").is_some() => Some(Task::Instance),
        () => None,
    };
    hints::fill(&file, &mut hints.stuff_classes, "stuff_classes", stuff, &key("stuff_classes"))?;
    hints::fill(&file, &mut hints.task, "task", task, ROOT)?;
    // A pickled network records its heads, in every block the same.
    let mut heads = vec![];
    hyper.get("network").unwrap_or(&Data::Null).find_sizes(&["num_heads", "num_attention_heads"], &mut heads);
    heads.dedup();
    let heads = if let [heads] = heads[..] { Some(heads) } else { None };
    hints::fill(&file, &mut hints.heads, "num_attention_heads", heads, &key("network"))
}
