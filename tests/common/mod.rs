//! What the integration tests share: data, the program, an emulator's name.
#![allow(dead_code)] // every test file uses its own part

pub mod daemon;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;

/// A file or directory under `tests/data`.
pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// The shipped model.
pub fn shipped_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/eomt-nano-scenes.onnx")
}

/// The checkpoint that PyTorch ran for the expectations, converted in f32. It is where the shipped model's training started.
pub fn pytorch_model(scratch: &Scratch) -> PathBuf {
    let model = scratch.path("nano.onnx");
    let mut convert = eomt_edge();
    convert.arg("convert").arg(data("nano")).args(["--stuff", "floor,wall,sky", "--threshold", "0.5", "--no-check", "-o"]);
    succeed(convert.arg(&model));
    model
}

/// A command that starts `program`, through the emulator that `EOMT_EDGE_TEST_RUNNER` names when the tests are cross-compiled.
pub fn command(program: impl AsRef<Path>) -> Command {
    let runner = std::env::var("EOMT_EDGE_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    match words.next() {
        None => Command::new(program.as_ref()),
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.args(words).arg(program.as_ref());
            command
        }
    }
}

/// `eomt-edge`.
pub fn eomt_edge() -> Command {
    command(env!("CARGO_BIN_EXE_eomt-edge"))
}

/// A Python with numpy.
pub fn python() -> Command {
    Command::new(std::env::var_os("EOMT_EDGE_TEST_PYTHON").unwrap_or_else(|| "python3".into()))
}

/// Runs to the end; panics with the program's own words when it fails.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs a command that must fail with `code`; returns its sentence.
pub fn fail(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("the program starts");
    let sentence = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{command:?}: {sentence}");
    assert!(!sentence.contains("panicked") && !sentence.contains("RUST_BACKTRACE"), "{sentence}");
    assert!(!sentence.trim().is_empty());
    sentence
}

/// A directory that is gone when the test ends.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("eomt-edge-test-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path); // of an earlier run that was killed
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    /// Names of what lies in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("readable");
        let mut names: Vec<String> = entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Shape and values of an f32 tensor.
pub fn floats(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{}: {name}: {error}", path.display()));
    let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (tensor.shape().to_vec(), values)
}

/// Values of an i32 tensor.
pub fn integers(path: &Path, name: &str) -> Vec<i32> {
    let bytes = std::fs::read(path).expect("readable");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = file.tensor(name).expect("there");
    tensor.data().chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
