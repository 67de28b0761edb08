//! Every input of the corpus, without an engine: what was found once stays mended.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{TARGETS, find};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(name: &str) -> Vec<PathBuf> {
    let folder = corpus().join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("readable").path()).collect()
}

/// Targets count the descriptors of the process, and fork it: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// One test a target, so that a failure names it.
macro_rules! run_the_corpus_of {
    ($($name:ident),*) => { $(
        #[test]
        fn $name() {
            let target = find(stringify!($name)).expect("a target");
            let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            let inputs = inputs(target.name);
            assert!(!inputs.is_empty(), "no corpus");
            for path in inputs {
                println!("{}", path.display()); // of a failing test, the last line says which
                (target.run)(&std::fs::read(&path).expect("readable"));
            }
        }
    )* };
}
run_the_corpus_of!(
    model,
    torch_zip,
    pickle,
    safetensors,
    json,
    ring_client,
    ring_server,
    jpeg,
    png,
    bag,
    ros_image,
    recover,
    stream,
    config,
    control,
    mqtt
);

#[test]
fn every_target_is_a_program_with_a_corpus() {
    let manifest = include_str!("../Cargo.toml");
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"\npath = \"targets/{0}.rs\"", target.name)), "{} is no program", target.name);
        assert!(corpus().join(target.name).is_dir(), "{} has no corpus", target.name);
    }
}

/// The corpus is text and small pictures that everybody clones.
#[test]
fn the_corpus_is_small() {
    let bytes: u64 = TARGETS.iter().flat_map(|target| inputs(target.name)).map(|path| path.metadata().expect("readable").len()).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes");
}
