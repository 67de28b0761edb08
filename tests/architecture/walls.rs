//! Imports, `unsafe`, purity, sizes.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{Source, crates, functions, root, sources, unsafe_count, used_paths, without_tests};

/// Which crate of the workspace may depend on which. Cargo keeps the rest out; this keeps the manifests to it.
const DEPENDS_ON: &[(&str, &[&str])] = &[
    ("bridge", &["client", "files", "overlay", "ros"]), // what reads the ring and speaks to the outside
    ("client", &[]),
    ("core", &["overlay"]),
    ("files", &[]),
    ("fuzz", &["bridge", "client", "core", "host", "ros", "tools"]), // and the program itself: it feeds what each of them reads
    ("host", &["core", "files", "ros"]),
    ("overlay", &[]),
    ("ros", &["files"]),
    ("tools", &["core", "host", "ros"]),
    ("train", &["core", "host", "tools"]),
    ("eomt-edge", &["client", "core", "host", "ros", "tools", "train"]),
];

/// Crates that compute or read only what they are handed may not use these at all.
const NOT_IN_CORE: &[&str] = &["log", "rustix", "libc", "anyhow"];

/// Crate, module of its root, and the modules beside it that it may import. A crate that is not listed has no such table.
const MAY_IMPORT: &[(&str, &str, &[&str])] = &[
    ("core", "data", &[]),
    ("core", "kernels", &[]),
    ("core", "scenes", &["data"]),
    ("core", "preprocess", &["data", "kernels"]),
    ("core", "model", &["data", "kernels"]),
    ("core", "segment", &["data", "kernels"]),
    ("core", "pipeline", &["data", "kernels", "preprocess", "model", "segment"]),
    ("core", "track", &["data", "kernels", "pipeline"]),
    ("eomt-edge", "config", &[]),
    ("eomt-edge", "cli", &["config"]),
    ("eomt-edge", "source", &[]),
    ("eomt-edge", "picture", &[]),
    ("eomt-edge", "socket", &[]),
    ("eomt-edge", "sink", &["config", "picture", "socket"]),
    ("eomt-edge", "control", &["config", "socket"]),
    ("eomt-edge", "daemon", &["config", "control", "source", "sink", "socket"]),
    ("eomt-edge", "doctor", &["config", "daemon", "source", "sink", "socket"]),
    ("eomt-edge", "view", &["picture"]),
];

/// Modules of the program on the board that may use the tools: the one that turns arguments into options.
const MAY_USE_TOOLS: &[&str] = &["commands", "cli", "main"];

/// Folders and files that may contain `unsafe`, and why.
const MAY_BE_UNSAFE: &[&str] = &[
    "crates/core/src/kernels/arch/",         // intrinsics
    "crates/host/src/allocator.rs",          // malloc_trim(3)
    "crates/client/src/",                    // shared memory, descriptors from a socket
    "crates/tools/src/ort/",                 // ONNX Runtime's C API
    "crates/train/src/product.rs",           // the matrix products of the gemm crate, which takes pointers
    "fuzz/src/child.rs",                     // fork, counters of edges
    "fuzz/src/engine.rs",                    // libFuzzer's C API
    "fuzz/src/memory.rs",                    // an allocator with a bound
    "src/limits.rs",                         // an allocator
    "src/sink/ring/",                        // shared memory
    "src/socket/",                           // a socket option, inherited descriptors
    "src/sink/display/framebuffer/ioctl.rs", // <linux/fb.h>
    "src/source/v4l2/sys/",                  // <linux/videodev2.h>, buffers that the driver maps
];

/// What core may not name, and the one place that may.
const IMPURE: &[(&str, &str)] = &[
    ("std::fs", ""),
    ("std::net", ""),
    ("std::env", ""),
    ("std::process", ""),
    ("std::os", ""),
    ("std::thread", ""),
    ("std::io::stdin", ""),
    ("std::io::stdout", ""),
    ("std::io::stderr", ""),
    ("std::time::Instant", ""),
    ("std::time::SystemTime", ""),
    ("rayon", "crates/core/src/kernels/"), // the pool is lent by the caller: `kernels::workers`
    ("log", ""),
    ("println", ""),
    ("eprintln", ""),
    ("print", ""),
    ("eprint", ""),
];

/// Methods by which tract reads files.
const READS_FILES: &[&str] = &["model_for_path", "proto_model_for_path", "load_path", "open"];

/// Functions of the standard library that read a file without a bound, or wait for it.
const READS_WITHOUT_BOUND: &[&str] = &["read", "read_to_string", "open", "options", "new", "read_dir"];

/// Who may use them, and why. Everybody else asks `eomt_edge_host::files`.
const MAY_READ: &[(&str, &[&str])] = &[
    ("fuzz/", &["open", "read", "read_to_string", "read_dir"]),       // inputs, /proc
    ("crates/files/src/files/", &["open", "options"]),                // the one place
    ("src/source/pipe/input.rs", &["options"]),                       // FIFOs
    ("src/sink/display/framebuffer/", &["new"]),                      // devices
    ("src/doctor.rs", &["open", "new", "read_dir"]),                  // devices; /dev and /sys
    ("src/daemon/last_good.rs", &["open", "options", "read_dir"]),    // the daemon's own state, bounded there
    ("src/source/v4l2/identity.rs", &["read_dir"]),                   // /dev and /sys
    ("src/sink/display/gpio.rs", &["read_dir"]),                      // /dev
    ("src/socket/reaper.rs", &["read_dir"]),                          // /proc/self/fd
    ("src/control/models.rs", &["read_dir"]),                         // counts
    ("crates/bridge/src/metrics/machine.rs", &["read_dir"]),          // /sys
    ("crates/bridge/src/record/series.rs", &["options", "read_dir"]), // makes recordings, counts those of its series
    ("crates/bridge/src/record/spool.rs", &["open"]),                 // a directory, to be written through
    ("crates/bridge/src/record/repair.rs", &["open"]),                // a disk's free room
    ("crates/bridge/src/ros2/output.rs", &["options"]),               // a FIFO
    ("crates/bridge/src/web/tls.rs", &["new"]),                       // makes a key
    ("src/source/replay.rs", &["read_dir"]),                          // counts
    ("crates/tools/src/evaluate/video/mod.rs", &["read_dir"]),        // counts
    ("crates/ros/src/bag/listing.rs", &["read_dir"]),                 // counts
    ("crates/tools/src/datasets/find.rs", &["read_dir"]),             // counts
    ("crates/tools/src/convert/calibrate.rs", &["read_dir"]),         // counts
    ("crates/tools/src/checkpoint/weights.rs", &["read_dir"]),        // stops at the second
];

/// Lines of a file without its tests, and of a function.
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Files of generated or tabular content.
const MAY_BE_LONG: &[&str] = &[];

fn fail_if_any(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Resolves `crate`, `self` and `super` (any number of them) against the file's own module; `None` for other crates' paths.
fn inside(source: &Source, words: &[String]) -> Option<Vec<String>> {
    let mut place = match words[0].as_str() {
        "crate" => Vec::new(),
        "self" | "super" => source.module.clone(),
        _ => return None,
    };
    for word in words {
        match word.as_str() {
            "crate" | "self" => {}
            "super" => {
                place.pop();
            }
            word => place.push(word.to_owned()),
        }
    }
    Some(place)
}

#[test]
fn super_reaches_the_module_that_it_means() {
    let place = |words: &str| {
        let tree = syn::parse_file("").expect("empty");
        let module = ["a", "b", "c"].map(str::to_owned).to_vec();
        let source = Source { path: String::new(), krate: "core".to_owned(), module, text: String::new(), tree };
        inside(&source, &words.split("::").map(str::to_owned).collect::<Vec<_>>()).map(|place| place.join("::"))
    };
    assert_eq!(place("super::super::x::Y").as_deref(), Some("a::x::Y"));
    assert_eq!(place("super::super::super::x").as_deref(), Some("x"));
    assert_eq!(place("self::d").as_deref(), Some("a::b::c::d"));
    assert_eq!(place("crate::q").as_deref(), Some("q"));
    assert_eq!(place("std::fs"), None);
}

#[test]
fn crates_depend_only_on_what_the_table_allows() {
    let mut wrong = Vec::new();
    let allowed: BTreeMap<&str, &[&str]> = DEPENDS_ON.iter().copied().collect();
    for (krate, folder) in crates() {
        let manifest = std::fs::read_to_string(folder.parent().expect("a crate").join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = manifest.parse().expect("TOML");
        let Some(allowed) = allowed.get(krate.as_str()) else {
            wrong.push(format!("the crate {krate} is not in the table"));
            continue;
        };
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table).expect("dependencies");
        for name in dependencies.keys() {
            if let Some(ours) = name.strip_prefix("eomt-edge-")
                && !allowed.contains(&ours)
            {
                wrong.push(format!("{krate} depends on {ours}"));
            }
            if krate == "core" && NOT_IN_CORE.contains(&name.as_str()) {
                wrong.push(format!("core depends on {name}"));
            }
        }
    }
    fail_if_any(wrong);
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let allowed: BTreeMap<(&str, &str), &[&str]> = MAY_IMPORT.iter().map(|(krate, module, may)| ((*krate, *module), *may)).collect();
    let listed: BTreeSet<&str> = MAY_IMPORT.iter().map(|(krate, ..)| *krate).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = source.module.first() else { continue };
        for used in used_paths(&source) {
            let tools = ["eomt_edge_tools", "eomt_edge_train"].contains(&used[0].as_str());
            if source.krate == "eomt-edge" && tools && !MAY_USE_TOOLS.contains(&own.as_str()) {
                wrong.push(format!("{}: the daemon's side uses {}", source.path, used.join("::")));
            }
            let Some(target) = inside(&source, &used).and_then(|place| place.into_iter().next()) else { continue };
            let is_module = |name: &str| allowed.contains_key(&(source.krate.as_str(), name));
            if target == *own || !listed.contains(source.krate.as_str()) || !is_module(&target) {
                continue;
            }
            let may = allowed.get(&(source.krate.as_str(), own.as_str()));
            match may {
                None if ["main", "commands", "logging", "report"].contains(&own.as_str()) => {}
                None => wrong.push(format!("{}: the module {own} is not in the table", source.path)),
                Some(may) if may.contains(&target.as_str()) => {}
                Some(_) => wrong.push(format!("{}: {own} imports {target}: {}", source.path, used.join("::"))),
            }
        }
    }
    wrong.dedup();
    fail_if_any(wrong);
}

/// For each module, which of its children import which of its other children: there must be no way back.
#[test]
fn siblings_do_not_import_each_other_in_circles() {
    let all = sources();
    let mut wrong = Vec::new();
    for krate in crates().into_iter().map(|(krate, _)| krate) {
        let of_crate: Vec<&Source> = all.iter().filter(|source| source.krate == krate).collect();
        let modules: BTreeSet<&[String]> = of_crate.iter().map(|source| source.module.as_slice()).collect();
        // parent → (child → children that it imports)
        let mut graphs: BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for source in &of_crate {
            for used in used_paths(source) {
                let Some(target) = inside(source, &used) else { continue };
                let common = source.module.iter().zip(&target).take_while(|(a, b)| a == b).count();
                // both lie below the common parent, in different children that are modules
                let (Some(from), Some(to)) = (source.module.get(common), target.get(common)) else { continue };
                if modules.contains(&target[..=common]) {
                    let graph = graphs.entry(target[..common].to_vec()).or_default();
                    graph.entry(from.clone()).or_default().insert(to.clone());
                }
            }
        }
        for (parent, graph) in &graphs {
            if let Some(circle) = circle(graph) {
                wrong.push(format!("{krate}::{}: {}", parent.join("::"), circle.join(" → ")));
            }
        }
    }
    fail_if_any(wrong);
}

/// A way from a node back to itself.
fn circle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(graph: &BTreeMap<String, BTreeSet<String>>, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        let here = way.last().expect("started").clone();
        for next in graph.get(&here).into_iter().flatten() {
            if let Some(start) = way.iter().position(|step| step == next) {
                return Some(way[start..].iter().cloned().chain([next.clone()]).collect());
            }
            if done.insert(next.clone()) {
                way.push(next.clone());
                if let Some(found) = walk(graph, way, done) {
                    return Some(found);
                }
                way.pop();
            }
        }
        None
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| {
        let fresh = done.insert(start.clone());
        fresh.then(|| walk(graph, &mut vec![start.clone()], &mut done)).flatten()
    })
}

#[test]
fn circles_are_found() {
    let graph = |arrows: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in arrows {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        circle(&graph)
    };
    assert_eq!(graph(&[("a", "b"), ("b", "c"), ("a", "c")]), None);
    assert_eq!(graph(&[("a", "b"), ("b", "c"), ("c", "b")]).map(|way| way.join(" ")), Some("b c b".to_owned()));
}

#[test]
fn unsafe_code_and_intrinsics_stay_in_their_places() {
    let mut wrong = Vec::new();
    for source in sources() {
        if !MAY_BE_UNSAFE.iter().any(|place| source.path.starts_with(place)) {
            wrong.extend((unsafe_count(&source) > 0).then(|| format!("{}: unsafe", source.path)));
        }
        if !source.path.starts_with("crates/core/src/kernels/arch/") {
            for used in used_paths(&source) {
                if used.len() > 1 && ["std", "core"].contains(&used[0].as_str()) && used[1] == "arch" {
                    wrong.push(format!("{}: {}", source.path, used.join("::")));
                }
            }
        }
    }
    fail_if_any(wrong);
}

#[test]
fn core_opens_no_file_reads_no_clock_starts_no_thread_and_logs_nothing() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(|source| source.krate == "core") {
        for used in used_paths(&source) {
            let path = used.join("::");
            for (forbidden, except) in IMPURE {
                let named = path == *forbidden || path.starts_with(&format!("{forbidden}::"));
                if named && (except.is_empty() || !source.path.starts_with(except)) {
                    wrong.push(format!("{}: {path}", source.path));
                }
            }
            if used.last().is_some_and(|last| READS_FILES.contains(&last.as_str())) {
                wrong.push(format!("{}: {path} reads a file", source.path));
            }
        }
        for method in READS_FILES {
            if source.text.contains(&format!(".{method}(")) {
                wrong.push(format!("{}: .{method}() reads a file", source.path));
            }
        }
    }
    fail_if_any(wrong);
}

#[test]
fn files_are_read_within_bounds() {
    let mut wrong = Vec::new();
    for source in sources() {
        for used in used_paths(&source) {
            let words: Vec<&str> = used.iter().map(String::as_str).collect();
            let name = match words[..] {
                ["std", "fs", name] | ["fs", name] => name,
                ["std", "fs", "File" | "OpenOptions", name] | [.., "File" | "OpenOptions", name] => name,
                _ => continue,
            };
            let may = MAY_READ.iter().any(|(place, names)| source.path.starts_with(place) && names.contains(&name));
            if READS_WITHOUT_BOUND.contains(&name) && !may {
                wrong.push(format!("{}: {}", source.path, words.join("::")));
            }
        }
    }
    fail_if_any(wrong);
}

/// A control channel without a bound grows as long as its reader sleeps.
#[test]
fn channels_have_a_bound() {
    let mut wrong = Vec::new();
    for source in sources() {
        for used in used_paths(&source) {
            let words: Vec<&str> = used.iter().map(String::as_str).collect();
            if matches!(words[..], [.., "mpsc", "channel"]) {
                wrong.push(format!("{}: {}", source.path, words.join("::")));
            }
        }
    }
    fail_if_any(wrong);
}

#[test]
fn files_open_with_their_purpose_and_stay_readable() {
    let mut wrong = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//!") {
            wrong.push(format!("{} does not say what it is for", source.path));
        }
        let lines = without_tests(&source.text).lines().count();
        if lines > FILE_LINES_MAX && !MAY_BE_LONG.contains(&source.path.as_str()) {
            wrong.push(format!("{} has {lines} lines before its tests", source.path));
        }
        for function in functions(&source) {
            if function.lines > FUNCTION_LINES_MAX {
                wrong.push(format!("{}:{}: {} has {} lines", source.path, function.line, function.name, function.lines));
            }
        }
    }
    fail_if_any(wrong);
}

/// Sources of the workspace stand in the folders that the map in the documentation names.
#[test]
fn the_workspace_has_the_crates_of_the_table() {
    let listed: BTreeSet<&str> = DEPENDS_ON.iter().map(|(krate, _)| *krate).collect();
    for (krate, folder) in crates() {
        assert!(listed.contains(krate.as_str()), "{krate} in {} is not in the table", folder.display());
    }
    assert!(root().join("docs/design.md").is_file(), "docs/design.md draws the crates");
}
