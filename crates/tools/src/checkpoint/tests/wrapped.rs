//! The same network in every wrapping: prefixes, dictionaries, shards, averaged weights, objects beside the state.

use std::io::Write;

use super::super::weights;
use super::*;

/// A state dict whose values are raw tensors; or a dictionary around others; or opcodes as they are.
enum Node {
    State(Raw),
    Dict(Vec<(&'static str, Node)>),
    Code(&'static [u8]),
}

fn text(code: &mut Vec<u8>, text: &str) {
    code.push(b'X');
    code.extend((text.len() as u32).to_le_bytes());
    code.extend(text.as_bytes());
}

/// Pickles as `torch.save` does, each tensor in a storage of its own.
fn pickle(code: &mut Vec<u8>, storages: &mut Vec<Vec<u8>>, node: Node) {
    match node {
        Node::Code(opcodes) => code.extend(opcodes),
        Node::Dict(pairs) => {
            code.extend(b"}(");
            for (key, node) in pairs {
                text(code, key);
                pickle(code, storages, node);
            }
            code.push(b'u');
        }
        Node::State(raw) => {
            code.extend(b"ccollections\nOrderedDict\n)R(");
            for (name, (kind, shape, bytes)) in raw {
                assert_eq!(kind, "F32");
                text(code, &name);
                code.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
                text(code, "storage");
                code.extend(b"ctorch\nFloatStorage\n");
                text(code, &storages.len().to_string());
                text(code, "cpu");
                let tuple = |code: &mut Vec<u8>, sizes: &[usize]| {
                    code.push(b'(');
                    sizes.iter().for_each(|size| code.extend([&b"J"[..], &(*size as u32).to_le_bytes()].concat()));
                    code.push(b't');
                };
                code.extend([&b"J"[..], &(bytes.len() as u32 / 4).to_le_bytes(), b"tQK\x00"].concat());
                let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
                tuple(code, &shape);
                tuple(code, &strides);
                code.extend(b"\x89ccollections\nOrderedDict\n)RtR");
                storages.push(bytes);
            }
            code.push(b'u');
        }
    }
}

fn write_torch(path: &Path, node: Node) {
    let (mut code, mut storages) = (b"\x80\x02".to_vec(), vec![]);
    pickle(&mut code, &mut storages, node);
    code.push(b'.');
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let members = storages.into_iter().enumerate().map(|(key, bytes)| (format!("data/{key}"), bytes));
    for (name, bytes) in std::iter::once(("data.pkl".to_string(), code)).chain(members) {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap();
}

/// The tensors of a weight file as `F32`.
fn raw_of(path: &Path) -> Raw {
    let mut tensors = weights::open(path, None).unwrap();
    let shapes: Vec<(String, Vec<usize>)> = tensors.entries.iter().map(|(name, entry)| (name.clone(), entry.shape.clone())).collect();
    let raw = shapes.into_iter().map(|(name, shape)| {
        let bytes = tensors.peek(&name, &shape).unwrap().iter().flat_map(|value| value.to_le_bytes()).collect();
        (name, ("F32".to_string(), shape, bytes))
    });
    raw.collect()
}

fn renamed(raw: &Raw, rename: impl Fn(&str) -> String) -> Raw {
    raw.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
}

/// Another network of the same shapes.
fn doubled(raw: &Raw) -> Raw {
    let double = |bytes: &Vec<u8>| -> Vec<u8> {
        bytes.chunks(4).flat_map(|b| (f32::from_le_bytes(b.try_into().unwrap()) * 2.0).to_le_bytes()).collect()
    };
    let double = |name: &str, bytes| if name.ends_with("query.weight") { double(bytes) } else { bytes.clone() };
    raw.iter().map(|(name, (kind, shape, bytes))| (name.clone(), (kind.clone(), shape.clone(), double(name, bytes)))).collect()
}

/// A folder of transformers without its weights, and these.
fn folder() -> (Scratch, Raw) {
    let scratch = Scratch::of("checkpoint/hf-mixed-masking-10");
    let raw = raw_of(&scratch.join("model.safetensors"));
    fs::remove_file(scratch.join("model.safetensors")).unwrap();
    (scratch, raw)
}

const PREFIXES: [&str; 9] =
    ["", "model.", "module.", "_orig_mod.", "ema_model.", "network.", "module._orig_mod.model.", "model.eomt.", "some.wrapper.of.mine."];

#[test]
fn prefixes_are_stripped_alike_in_every_kind_of_file() {
    let plain = read_case("checkpoint/hf-mixed-masking-10").network;
    let (scratch, raw) = folder();
    for prefix in PREFIXES {
        let wrapped = || renamed(&raw, |name| format!("{prefix}{name}"));
        for file in ["model.safetensors", "pytorch_model.bin", "last.pt", "model.pth", "epoch=1.ckpt"] {
            let path = scratch.join(file);
            match file {
                "model.safetensors" => write_raw(&path, &wrapped()),
                _ => write_torch(&path, Node::State(wrapped())),
            }
            let checkpoint = read(&scratch.0, &Options::default()).unwrap_or_else(|error| panic!("{prefix} in {file}: {error}"));
            assert!(checkpoint.network == plain && checkpoint.warnings.is_empty(), "{prefix} in {file}");
            fs::remove_file(path).unwrap();
        }
    }
    // The authors' names, where a wrapper may also stand inside.
    let authors = data("reference/upstream-layout");
    let (plain, raw) = (read_case("reference/upstream-layout").network, raw_of(&authors.join("pytorch_model.bin")));
    let hints = authors.join("hints.json");
    let bare = |name: &str| name.strip_prefix("network.").unwrap_or(name).to_string();
    let inside = |name: &str| name.replace("encoder.backbone", "_orig_mod.encoder.module.backbone");
    let renames: [&dyn Fn(&str) -> String; 4] =
        [&bare, &|name| format!("model._orig_mod.{name}"), &|name| format!("ema_model.module.{}", bare(name)), &inside];
    for rename in renames {
        for file in ["model.safetensors", "model.bin"] {
            let path = scratch.join(file);
            match file {
                "model.bin" => write_torch(&path, Node::Dict(vec![("state_dict", Node::State(renamed(&raw, rename)))])),
                _ => write_raw(&path, &renamed(&raw, rename)),
            }
            let options = Options { hints: hints.to_str(), base: None };
            assert_eq!(read(&path, &options).unwrap_or_else(|error| panic!("{file}: {error}")).network, plain);
        }
    }
}

#[test]
fn dictionaries_around_the_state_are_opened() {
    let plain = read_case("checkpoint/hf-mixed-masking-10").network;
    let (scratch, raw) = folder();
    for keys in
        [&["model"][..], &["model_state_dict"], &["state_dict"], &["ema"], &["net"], &["ema", "module"], &["checkpoint", "model", "state"]]
    {
        let wrap = |node, key: &&'static str| Node::Dict(vec![("epoch", Node::Code(b"K\x03")), (*key, node)]);
        let node = keys.iter().rev().fold(Node::State(raw.clone()), wrap);
        write_torch(&scratch.join("pytorch_model.bin"), node);
        let checkpoint = read(&scratch.0, &Options::default()).unwrap_or_else(|error| panic!("{keys:?}: {error}"));
        assert!(checkpoint.network == plain && checkpoint.warnings.is_empty(), "{keys:?}");
    }
}

#[test]
fn of_two_states_the_averaged_one_is_taken_with_a_word_or_the_one_that_is_named() {
    let plain = read_case("checkpoint/hf-mixed-masking-10").network;
    let (scratch, raw) = folder();
    let (file, hints) = (scratch.join("pytorch_model.bin"), scratch.join("hints.json"));
    let state = |raw: &Raw| Node::State(raw.clone());
    let average = doubled(&raw);
    write_torch(&file, Node::Dict(vec![("model", state(&raw)), ("ema", Node::Dict(vec![("module", state(&average))]))]));
    let checkpoint = read(&scratch.0, &Options::default()).unwrap();
    assert_eq!(checkpoint.network.queries.data[0], plain.queries.data[0] * 2.0);
    assert_says(&checkpoint.warnings[0], &["'model'", "'ema.module'", "averaged", "'state'"]);
    let options = Options { hints: hints.to_str(), base: None };
    scratch.set("hints.json", "state", json!("model"));
    let checkpoint = read(&scratch.0, &options).unwrap();
    assert!(checkpoint.network == plain && checkpoint.warnings.is_empty());
    scratch.set("hints.json", "state", json!("student"));
    assert_says(&sentence(&scratch.0, Some(&hints)), &["pytorch_model.bin", "'model'", "'ema.module'", "'student'"]);
    write_torch(&file, Node::Dict(vec![("student", state(&raw)), ("teacher", state(&average))]));
    assert_says(&sentence(&scratch.0, None), &["pytorch_model.bin holds the states", "'student'", "'teacher'", "'state' in the hints"]);
    // The same by prefixes, in a safetensors file.
    fs::remove_file(&file).unwrap();
    let mut both = renamed(&raw, |name| format!("model.{name}"));
    both.extend(renamed(&average, |name| format!("ema_model.module.{name}")));
    write_raw(&scratch.join("model.safetensors"), &both);
    let checkpoint = read(&scratch.0, &Options::default()).unwrap();
    assert_eq!(checkpoint.network.queries.data[0], plain.queries.data[0] * 2.0);
    assert_says(&checkpoint.warnings[0], &["'model.'", "'ema_model.'", "averaged"]);
    scratch.set("hints.json", "state", json!("model"));
    assert_eq!(read(&scratch.0, &options).unwrap().network, plain);
    // A tensor of its own under another prefix is not lost without a word.
    let mut stray = renamed(&raw, |name| format!("model.{name}"));
    stray.insert("head.weight".into(), raw["query.weight"].clone());
    write_raw(&scratch.join("model.safetensors"), &stray);
    assert_says(&sentence(&scratch.0, None), &["head.weight", "no part"]);
}

#[test]
fn shards_of_torch_files_equal_one_file() {
    let plain = read_case("checkpoint/hf-mixed-masking-10").network;
    let (scratch, raw) = folder();
    let (first, second): (Raw, Raw) =
        renamed(&raw, |name| format!("model.{name}")).into_iter().partition(|(name, _)| name.as_str() < "model.layers.1");
    let mut map = Map::new();
    for (file, shard) in [("pytorch_model-00001-of-00002.bin", first), ("pytorch_model-00002-of-00002.bin", second)] {
        map.extend(shard.keys().map(|name| (name.clone(), json!(file))));
        write_torch(&scratch.join(file), Node::State(shard));
    }
    scratch.set("pytorch_model.bin.index.json", "weight_map", json!(map));
    assert_eq!(read(&scratch.0, &Options::default()).unwrap().network, plain);
    fs::remove_file(scratch.join("pytorch_model-00002-of-00002.bin")).unwrap();
    assert_says(&sentence(&scratch.0, None), &["pytorch_model-00002-of-00002.bin", "cannot read"]);
}

#[test]
fn objects_beside_the_state_are_skipped_and_inside_of_it_refused() {
    let plain = read_case("checkpoint/hf-mixed-masking-10").network;
    let (scratch, raw) = folder();
    let file = scratch.join("pytorch_model.bin");
    let objects: [&[u8]; 5] = [
        // argparse.Namespace by NEWOBJ and BUILD, a partial by REDUCE, an INST, an OBJ, a NEWOBJ_EX.
        b"cargparse\nNamespace\n)\x81}X\x02\x00\x00\x00lrG?\x1a6\xe2\xeb\x1cC-sb",
        b"cfunctools\npartial\ncos\nsystem\n\x85R}X\x01\x00\x00\x00aK\x01sb",
        b"(K\x01idatetime\ndate\n",
        b"(cpathlib\nPosixPath\nX\x01\x00\x00\x00/o",
        b"cnumpy.core.multiarray\nscalar\n)}\x92",
    ];
    for object in objects {
        write_torch(&file, Node::Dict(vec![("args", Node::Code(object)), ("model", Node::State(raw.clone()))]));
        assert_eq!(read(&scratch.0, &Options::default()).unwrap().network, plain);
    }
    let quantized: &[u8] = b"ctorch._utils\n_rebuild_qtensor\n)R";
    let mut pairs = vec![("model.query.weight", Node::Code(quantized))];
    let rest: Raw = renamed(&raw, |name| format!("model.{name}")).into_iter().filter(|(name, _)| name != "model.query.weight").collect();
    // One dictionary: the object first, then the tensors one by one.
    let names: Vec<String> = rest.keys().cloned().collect();
    for name in names.iter().take(2) {
        pairs.push((Box::leak(name.clone().into_boxed_str()), Node::Code(quantized)));
    }
    write_torch(&file, Node::Dict(vec![("state_dict", Node::Dict(pairs))]));
    assert_says(&sentence(&scratch.0, None), &["pytorch_model.bin", "torch._utils._rebuild_qtensor"]);
    write_torch(&file, Node::Code(b"cmodels.eomt\nEoMT\n)\x81}b"));
    assert_says(&sentence(&scratch.0, None), &["models.eomt.EoMT", "state_dict()"]);
}
