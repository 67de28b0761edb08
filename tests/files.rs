//! Files of others decide neither how much memory the program takes nor whether it ends, and signals leave nothing half written.

mod common;

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Scratch, data, eomt_edge, shipped_model, succeed};
use rustix::process::{Pid, Signal, kill_process};

/// Only ends what would hang.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for the end, up to [`PATIENCE`].
fn finish(mut child: Child, what: &str) -> Output {
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().expect("killed");
            panic!("{what} did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("its output")
}

/// Runs a command with at most `mib` of address space; it must fail with one sentence that holds every word.
fn refuse_within(mib: u64, command: &Command, words: &[&str]) {
    // an emulator reserves the address space of its guest
    let limit = if std::env::var_os("EOMT_EDGE_TEST_RUNNER").is_some() { "unlimited".to_owned() } else { (mib << 10).to_string() };
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v $1; shift; exec \"$@\"", "sh"]).arg(limit);
    limited.arg(command.get_program()).args(command.get_args()).env("RUST_LOG", "error");
    let child = limited.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("sh starts");
    let output = finish(child, &format!("{command:?}"));
    let sentence = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(matches!(output.status.code(), Some(1 | 2)), "{command:?}: {:?}: {sentence}", output.status);
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    assert!(!sentence.contains("bug in eomt-edge"), "{sentence}");
    for word in words {
        assert!(sentence.contains(word), "'{word}' is missing in: {sentence}");
    }
}

fn with(words: &[&str], path: &Path, more: &[&str]) -> Command {
    let mut command = eomt_edge();
    command.args(words).arg(path).args(more);
    command
}

/// Commands that read a file of each kind, as the words around its name.
fn readers(out: &str) -> Vec<(&'static str, Vec<&'static str>, Vec<String>)> {
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let nano = data("nano").to_string_lossy().into_owned();
    let clip = data("clip").to_string_lossy().into_owned();
    let model = shipped_model().to_string_lossy().into_owned();
    vec![
        ("config.toml", vec!["run", "--config"], own(&[])),
        ("m.onnx", vec!["run", "--check", "--model"], own(&[])),
        ("m.onnx", vec!["bench", "--frames", "1", "--model"], own(&[])),
        ("w.safetensors", vec!["convert"], own(&["-o", out])),
        ("w.bin", vec!["convert"], own(&["-o", out])),
        ("index.json", vec!["convert"], own(&["-o", out])),
        ("hints.json", vec!["convert", "--hints"], own(&[&nano, "-o", out])),
        ("p.png", vec!["preprocess", "--size", "64"], own(&["-o", out])),
        ("x.safetensors", vec!["logits", "--model"], own(&[&model, "-o", out])),
        ("a.json", vec!["evaluate", "--instances"], own(&["--images", &clip, "--model", &model])),
        ("data.yaml", vec!["evaluate", "--yolo"], own(&["--model", &model])),
    ]
}

/// The command of a row of [`readers`] for a file. `logits` takes the model first, then the file.
fn reader(row: &(&str, Vec<&str>, Vec<String>), path: &Path) -> Command {
    let mut command = eomt_edge();
    command.args(&row.1);
    if row.1[0] == "logits" {
        command.arg(&row.2[0]).arg(path).args(&row.2[1..]);
    } else {
        command.arg(path).args(&row.2);
    }
    command
}

#[test]
fn pipes_and_devices_are_refused_wherever_a_file_is_read() {
    let scratch = Scratch::new("no-files");
    let out = scratch.path("out").to_string_lossy().into_owned();
    for row in readers(&out) {
        let path = scratch.path(row.0);
        let _ = std::fs::remove_file(&path);
        // a pipe that nobody writes to stops whoever opens it to read; the device never ends
        succeed(Command::new("mkfifo").arg(&path));
        refuse_within(4096, &reader(&row, &path), &[row.0]);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        refuse_within(4096, &reader(&row, &path), &[row.0]);
    }
}

#[test]
fn files_of_any_size_take_little_memory() {
    let scratch = Scratch::new("sizes");
    let out = scratch.path("out").to_string_lossy().into_owned();
    for row in readers(&out) {
        let path = scratch.path(row.0);
        for bytes in [1u64 << 42, 3 << 30] {
            // nearly all of it is a hole: no disk is filled
            let mut file = std::fs::File::create(&path).unwrap();
            file.write_all(if row.0 == "w.bin" { b"PK\x03\x04" } else { b"{}" }).unwrap();
            file.set_len(bytes).unwrap();
            drop(file);
            refuse_within(1024, &reader(&row, &path), &[row.0]);
        }
    }
    assert!(!scratch.names().contains(&"out".to_owned()));
}

/// `{"a": [text, text, ...], "w": a tensor}`: a text of 10,000 characters that is recalled by its number, two bytes each time.
fn repeating_pickle(times: usize) -> Vec<u8> {
    let mut code = b"\x80\x02}(X\x01\x00\x00\x00a](X".to_vec();
    code.extend(10_000u32.to_le_bytes());
    code.extend([b'x'; 10_000]);
    code.extend(b"q\x00");
    (1..times).for_each(|_| code.extend(b"h\x00"));
    code.extend(b"eX\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n");
    code.extend(b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00K\x01\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRu.");
    code
}

/// Many keys of 10,000 characters, each with a dictionary of its own.
fn nested_pickle(times: usize) -> Vec<u8> {
    let mut code = b"\x80\x02}(X".to_vec();
    code.extend(10_000u32.to_le_bytes());
    code.extend([b'k'; 10_000]);
    code.extend(b"q\x00}");
    (1..times).for_each(|_| code.extend(b"h\x00}"));
    code.extend(b"u.");
    code
}

/// A zip file of stored members as torch.save writes it, and where each begins.
fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut crc_table = [0u32; 256];
    for (at, entry) in crc_table.iter_mut().enumerate() {
        *entry = (0..8).fold(at as u32, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 });
    }
    let crc = |bytes: &[u8]| !bytes.iter().fold(!0u32, |crc, byte| crc_table[usize::from(crc as u8 ^ byte)] ^ crc >> 8);
    let (mut file, mut list) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let (start, len) = (file.len() as u32, bytes.len() as u32);
        let common = [&[10, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &crc(bytes).to_le_bytes(), &len.to_le_bytes(), &len.to_le_bytes()].concat();
        let names = [&(name.len() as u16).to_le_bytes()[..], &[0, 0]].concat();
        file.extend([&b"PK\x03\x04"[..], &common, &names, name.as_bytes(), bytes].concat());
        let rest = [&[0; 10][..], &start.to_le_bytes(), name.as_bytes()].concat();
        list.extend([&b"PK\x01\x02\x14\x00"[..], &common, &names, &rest].concat());
    }
    let (start, count) = (file.len() as u32, members.len() as u16);
    let end = [&(list.len() as u32).to_le_bytes()[..], &start.to_le_bytes(), &[0, 0]].concat();
    [&file[..], &list, b"PK\x05\x06\0\0\0\0", &count.to_le_bytes(), &count.to_le_bytes(), &end].concat()
}

#[test]
fn archives_and_pickles_do_not_multiply_in_memory() {
    let scratch = Scratch::new("pickles");
    let path = scratch.path("w.bin");
    let out = scratch.path("out").to_string_lossy().into_owned();
    for (pickle, what) in [(repeating_pickle(480_000), "no config.json"), (nested_pickle(240_000), "holds no tensors")] {
        std::fs::write(&path, zip(&[("archive/data.pkl", &pickle), ("archive/data/0", &[0; 4])])).unwrap();
        refuse_within(1024, &with(&["convert"], &path, &["-o", &out]), &["w.bin", what]);
    }
    let (pickle, again) = (&b"\x80\x02}."[..], &b"\x80\x02}}."[..]);
    std::fs::write(&path, zip(&[("archive/data.pkl", pickle), ("archive/data.pkl", again)])).unwrap();
    refuse_within(1024, &with(&["convert"], &path, &["-o", &out]), &["w.bin", "the same name"]);
    // the second member is where the first is
    let mut overlapping = zip(&[("archive/data.pkl", pickle), ("archive/data/0", again)]);
    let last = overlapping.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    overlapping[last + 42..last + 46].fill(0);
    std::fs::write(&path, overlapping).unwrap();
    refuse_within(1024, &with(&["convert"], &path, &["-o", &out]), &["w.bin", "overlap"]);
    assert_eq!(scratch.names(), ["w.bin"]);
}

#[test]
fn the_replay_source_bounds_pictures_before_it_decodes_them() {
    let scratch = Scratch::new("replay-bounds");
    let folder = scratch.path("pictures");
    std::fs::create_dir(&folder).unwrap();
    let large = folder.join("large.png");
    image::GrayImage::new(8000, 8000).save(&large).unwrap();
    let source = format!("source.uri=replay:{}", folder.display());
    let socket = format!("ring.socket={}", scratch.path("s.sock").display());
    let mut run = eomt_edge();
    run.args(["run", "--frames", "1", "--set", &source, "--set", &socket, "--model"]).arg(shipped_model());
    refuse_within(2048, &run, &["pictures", "16777216", "source.max_pixels"]);
    // among others it is passed over, as are a pipe, a device and links to nowhere
    std::fs::copy(data("jpeg").join("baseline.jpg"), folder.join("a.jpg")).unwrap();
    std::os::unix::fs::symlink("a.jpg", folder.join("b.jpg")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.join("c.jpg")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.join("d.jpg")).unwrap();
    std::fs::create_dir(folder.join("e.jpg")).unwrap();
    succeed(Command::new("mkfifo").arg(folder.join("f.jpg")));
    let mut run = eomt_edge();
    run.args(["run", "--frames", "4", "--set", &source, "--set", &socket, "--set", "source.fps=0", "--model"]).arg(shipped_model());
    let child = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let output = finish(child, "replay");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("3 pictures of") && said.contains("4 entries such as") && said.contains("large.png"), "{said}");
}

/// Starts a conversion of a small checkpoint into `out`, asks it to end after `delay`, and waits.
fn convert_until(signal: Option<Signal>, delay: Duration, out: &Path) -> Output {
    let mut command = eomt_edge();
    command.arg("convert").arg(data("nano")).arg("-o").arg(out);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    if let Some(signal) = signal {
        std::thread::sleep(delay);
        let _ = kill_process(Pid::from_child(&child), signal); // it may have ended
    }
    finish(child, "convert")
}

#[test]
fn a_signal_leaves_nothing_half_written() {
    let scratch = Scratch::new("signals");
    let out = scratch.path("out.onnx");
    let start = Instant::now();
    assert!(convert_until(None, Duration::ZERO, &out).status.success());
    let (whole, took) = (std::fs::read(&out).unwrap(), start.elapsed());
    const TIMES: u32 = 8;
    let mut ended = 0;
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        for step in 0..TIMES {
            std::fs::remove_file(&out).unwrap();
            let output = convert_until(Some(signal), took * step / TIMES, &out);
            ended += u32::from(output.status.signal() == Some(signal.as_raw()));
            match &scratch.names()[..] {
                [] => {}
                [name] if name == "out.onnx" => assert!(std::fs::read(&out).unwrap() == whole, "half a file"),
                names => panic!("{signal:?} left {names:?}"),
            }
            // over an existing file
            std::fs::write(&out, "old").unwrap();
            if signal != Signal::KILL {
                convert_until(Some(signal), took * step / TIMES, &out);
                assert_eq!(scratch.names(), ["out.onnx"], "{signal:?}");
                let now = std::fs::read(&out).unwrap();
                assert!(now == b"old" || now == whole, "half a file");
            }
        }
    }
    assert!(ended > TIMES, "only {ended} of the conversions were interrupted");
}

#[test]
fn zip_is_what_other_programs_read() {
    let scratch = Scratch::new("zip");
    let path: PathBuf = scratch.path("a.zip");
    std::fs::write(&path, zip(&[("archive/data.pkl", b"abc"), ("archive/version", b"3\n")])).unwrap();
    let script =
        "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; print(z.read('archive/data.pkl').decode())";
    let python = std::env::var("EOMT_EDGE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = succeed(Command::new(python).args(["-c", script]).arg(&path));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "abc");
}
