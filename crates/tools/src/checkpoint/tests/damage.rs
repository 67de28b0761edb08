//! Damaged and hostile files: an error or a network, never a panic, and never a call.

use std::io::Write;

use zip::write::SimpleFileOptions;

use super::super::pickle::Fault;
use super::super::state;
use super::*;

/// A PyTorch file around a pickle.
fn torch_file(path: &Path, pickle: &[u8], others: &[(&str, &[u8])]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("data.pkl", pickle)].iter().chain(others) {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

fn pickle_sentence(pickle: &[u8], others: &[(&str, &[u8])]) -> String {
    let scratch = Scratch::new();
    let path = scratch.join("model.bin");
    torch_file(&path, pickle, others);
    sentence(&path, None)
}

#[test]
fn a_pickle_that_calls_is_refused_by_name() {
    let hostile: [(&[u8], &str); 9] = [
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "os.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02ls\x85R.", "posix.system"),
        (b"(S'ls'\nios\nsystem\n.", "os.system"),
        (b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", "builtins.eval"),
        (b"\x80\x02}X\x01\x00\x00\x00aq\x00ctorch\nload\n)Rs.", "torch.load"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93)\x81.", "builtins.exec"),
        (b"\x80\x02ccollections\nOrderedDict\n(cnumpy.core.multiarray\n_reconstruct\ntR.", "numpy.core.multiarray._reconstruct"),
        (b"\x80\x02\x82\x07.", "extension 7"),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\n(C\x00tR.", "torch.storage._load_from_bytes"),
    ];
    for (pickle, name) in hostile {
        assert_says(&pickle_sentence(pickle, &[]), &["model.bin calls", name, "a checkpoint may only build tensors"]);
    }
}

#[test]
fn nonsense_pickles_are_damage() {
    let cases: [&[u8]; 12] = [
        b"",
        b"\x80\x02",
        b"\x80\x09N.",
        b"\x80\x02N.",
        b"\x80\x02].",
        b"\x80\x020.",
        b"\x80\x02(t",
        b"\x80\x02h\x07.",
        b"\x80\x02NR.",
        b"\x80\x02}(Nu.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    ];
    for pickle in cases {
        assert_says(&pickle_sentence(pickle, &[]), &["is damaged: its data.pkl"]);
    }
    // As deep as it likes: values live in arenas.
    let deep = [&b"\x80\x02"[..], b")", &vec![0x85; 900_000], b"."].concat();
    assert!(matches!(state::read(&deep, None), Err(Fault::Bad(_))));
    assert!(matches!(state::read(&vec![b'N'; 1_500_000], None), Err(Fault::Bad(problem)) if problem.contains("operations")));
}

/// `{"network.encoder.x": tensor}` with a storage of 8 floats and this offset, size and stride.
fn view(offset: u8, size: u8, stride: u8) -> Vec<u8> {
    let mut code = b"\x80\x02}X\x11\x00\x00\x00network.encoder.xctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    code.extend(b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x08tQ");
    code.extend([b'K', offset, b'K', size, 0x85, b'K', stride, 0x85, 0x89]);
    code.extend(b"ccollections\nOrderedDict\n)RtRs.");
    code
}

#[test]
fn views_stay_inside_their_storage() {
    let storage = ("data/0", &[0u8; 32][..]);
    for (offset, size, stride) in [(0, 9, 1), (1, 8, 1), (0, 5, 2), (9, 1, 1), (0, 255, 255)] {
        assert_says(&pickle_sentence(&view(offset, size, stride), &[storage]), &["network.encoder.x", "beyond its storage of 32 bytes"]);
    }
    let fits = pickle_sentence(&view(1, 4, 2), &[storage]);
    assert_says(&fits, &["network.q.weight", "missing"]);
    assert_says(&pickle_sentence(&view(0, 1, 1), &[]), &["storage '0' is missing"]);
    assert_says(&pickle_sentence(&view(0, 1, 1), &[storage, ("byteorder", b"big")]), &["big-endian"]);
    assert_says(&pickle_sentence(&view(0, 1, 1), &[storage, ("constants.pkl", b"")]), &["TorchScript"]);
}

#[test]
fn names_and_counts_have_bounds() {
    let scratch = Scratch::new();
    let path = scratch.join("model.safetensors");
    let mut raw = Raw::new();
    raw.insert("n".repeat(2000), ("F32".into(), vec![1], vec![0; 4]));
    write_raw(&path, &raw);
    let said = sentence(&path, None);
    assert_says(&said, &["model.safetensors", "nnn…", "2000 bytes"]);
    let many: Raw = (0..100_001).map(|at| (format!("t{at}"), ("F32".into(), vec![0], vec![]))).collect();
    write_raw(&path, &many);
    assert_says(&sentence(&path, None), &["model.safetensors", "100001 tensors", "100000 are allowed"]);
    fs::write(&path, [&(1u64 << 40).to_le_bytes()[..], b"{}"].concat()).unwrap();
    assert_says(&sentence(&path, None), &["its header should have 1099511627776 bytes"]);
    let index = scratch.join("model.safetensors.index.json");
    let map: Map<String, Value> = (0..2000).map(|at| (format!("t{at}"), json!(format!("shard-{at}.safetensors")))).collect();
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert_says(&sentence(&index, None), &["'weight_map'", "2000 files"]);
    let key =
        [&b"\x80\x02}X"[..], &2000u32.to_le_bytes(), &[b'k'; 2000], &view(0, 1, 1)[b"\x80\x02}X\x11\x00\x00\x00network.encoder.x".len()..]]
            .concat();
    assert_says(&pickle_sentence(&key, &[("data/0", &[0u8; 32])]), &["a tensor whose name has 2000 bytes"]);
}

/// Reads `bytes` as the weight file of a case; whatever comes, it comes as a value.
fn survives(scratch: &Scratch, file: &str, bytes: &[u8]) -> bool {
    fs::write(scratch.join(file), bytes).unwrap();
    let hints = scratch.join("hints.json");
    let hints = hints.is_file().then(|| hints.to_str().unwrap().to_string());
    match read(&scratch.0, &Options { hints: hints.as_deref(), base: None }) {
        Ok(_) => true,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.len() < 1200, "no sentence: {text}");
            false
        }
    }
}

#[test]
fn truncated_files_are_errors() {
    for (case, file) in [("reference/upstream-layout", "pytorch_model.bin"), ("reference/dinov2", "model.safetensors")] {
        let scratch = Scratch::of(case);
        let bytes = fs::read(scratch.join(file)).unwrap();
        assert!(survives(&scratch, file, &bytes));
        let lengths = (0..64).chain((64..bytes.len()).step_by(bytes.len() / 60)).chain(bytes.len() - 40..bytes.len());
        for length in lengths {
            assert!(!survives(&scratch, file, &bytes[..length]), "{file} cut to {length} bytes was read");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        survives(&scratch, file, &longer);
    }
}

#[test]
fn flipped_bits_do_not_panic() {
    for (case, file) in [("checkpoint/upstream-giant", "pytorch_model.bin"), ("checkpoint/hf-bf16", "model.safetensors")] {
        let scratch = Scratch::of(case);
        let mut bytes = fs::read(scratch.join(file)).unwrap();
        let end = bytes.len();
        // Densely where the structure is: the header of safetensors, the directory of a zip.
        let dense = if file.ends_with("bin") { (end - 8000..end).step_by(13) } else { (0..8000).step_by(13) };
        for (i, at) in dense.chain((0..end).step_by(1009)).enumerate() {
            let before = bytes[at];
            bytes[at] ^= 1 << (i % 8);
            survives(&scratch, file, &bytes);
            bytes[at] = before;
        }
    }
}

#[test]
fn flipped_bits_of_a_pickle_do_not_panic() {
    let path = data("reference/upstream-layout/pytorch_model.bin");
    let mut archive = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut bytes = vec![];
    std::io::copy(&mut archive.by_name("pytorch_model/data.pkl").unwrap(), &mut bytes).unwrap();
    let whole = state::read(&bytes, None).unwrap();
    assert_eq!(whole.tensors.len(), 86);
    for at in 0..bytes.len() {
        assert!(at % 8 != 0 || state::read(&bytes[..at], None).is_err());
        let before = bytes[at];
        bytes[at] ^= 1 << (at % 8);
        let _ = state::read(&bytes, None);
        bytes[at] = before;
    }
}

#[test]
fn a_flipped_weight_in_a_zip_fails_its_checksum() {
    let scratch = Scratch::of("reference/upstream-layout");
    let mut bytes = fs::read(scratch.join("pytorch_model.bin")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert!(!survives(&scratch, "pytorch_model.bin", &bytes));
}
