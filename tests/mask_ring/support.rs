//! Processes, paths and patience for the tests of the mask ring.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Waiting for so long means that it never comes: no test depends on how fast a machine is.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The command that runs executables of the tests' own architecture, empty on that architecture itself.
pub fn runner() -> Vec<OsString> {
    std::env::var("EOMT_EDGE_TEST_RUNNER").unwrap_or_default().split_whitespace().map(OsString::from).collect()
}

/// `program`, through the runner if there is one.
pub fn emulated(program: &Path) -> Command {
    let mut words = runner();
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// Python with numpy, and our client on its path.
pub fn python() -> Command {
    static CHECKED: OnceLock<()> = OnceLock::new();
    let program = std::env::var_os("EOMT_EDGE_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    CHECKED.get_or_init(|| {
        let output = Command::new(&program).args(["-c", "import numpy"]).output();
        let fine = output.as_ref().is_ok_and(|output| output.status.success());
        assert!(fine, "{program:?} with numpy is needed to test the Python client (apt install python3-numpy): {output:?}");
    });
    let mut command = Command::new(program);
    command.env("PYTHONPATH", clients().join("python")).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
    command
}

pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// Compiles one C (or, by its suffix, C++) source against the header, with all warnings as errors.
pub fn compile(source: &Path, output: &Path) {
    compile_with(&[], source, output);
}

/// [`compile`] with options of its own.
pub fn compile_with(options: &[&str], source: &Path, output: &Path) {
    let own = std::env::var_os("EOMT_EDGE_TEST_CC").or_else(|| std::env::var_os("CC"));
    let compiler = own.unwrap_or_else(|| "cc".into());
    let standard = if source.extension().is_some_and(|suffix| suffix == "cpp") { "-std=c++17" } else { "-std=c11" };
    let result = Command::new(&compiler)
        .args(options)
        .args([standard, "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(clients().join("c"))
        .arg("-o")
        .args([output, source])
        .output();
    let result = result.unwrap_or_else(|error| panic!("the compiler {compiler:?} is needed to test the C client: {error}"));
    assert!(result.status.success(), "{compiler:?} failed on {}:\n{}", source.display(), String::from_utf8_lossy(&result.stderr));
}

/// An executable made by [`compile`].
pub fn compiled(program: &Path) -> Command {
    if std::env::var_os("EOMT_EDGE_TEST_CC").is_some() { emulated(program) } else { Command::new(program) }
}

/// AddressSanitizer and UBSan, which abort at the first finding. An emulator runs neither.
pub fn sanitizers() -> &'static [&'static str] {
    if runner().is_empty() { &["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"] } else { &[] }
}

/// The example subscriber in C, compiled once, under sanitizers.
pub fn c_subscriber() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("subscriber-{}", std::env::consts::ARCH));
        let draft = program.with_extension(std::process::id().to_string());
        compile_with(sanitizers(), &examples().join("c/subscriber.c"), &draft);
        std::fs::rename(&draft, &program).expect("both in cargo's own directory");
        program
    });
    compiled(program)
}

/// A directory of its own per test, removed at its end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("eomt-ring-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).expect("a directory for the test");
        Scratch(dir)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.join("masks.sock")
    }

    pub fn files(&self) -> Vec<OsString> {
        std::fs::read_dir(&self.0).expect("the directory").map(|entry| entry.expect("an entry").file_name()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A child whose stdout is read line by line; killed when dropped.
pub struct Process {
    child: Child,
    pub lines: Receiver<String>,
}

impl Process {
    pub fn spawn(mut command: Command) -> Process {
        let shown = format!("{command:?}");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let (sender, lines) = channel();
        let stdout = child.stdout.take().expect("piped above");
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Process { child, lines }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("our own child");
    }

    /// The next line of its stdout.
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(_) => {
                let _ = self.child.kill();
                panic!("no output from process {}; its stderr: {}", self.child.id(), self.stderr());
            }
        }
    }

    /// Its end within `patience`.
    pub fn end(&mut self, patience: Duration) -> ExitStatus {
        let mut status = None;
        until(patience, "the end of a process", || {
            status = self.child.try_wait().expect("our own child");
            status.is_some()
        });
        status.expect("found above")
    }

    /// All it wrote to stderr, once it has ended.
    pub fn stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text).expect("UTF-8");
        }
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An example of `examples/`, compiled from today's sources: `cargo test --test mask_ring` alone does not build examples.
fn example(name: &str, source: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let target = test.parent().and_then(Path::parent).expect("target/.../deps");
    let example = target.join("examples").join(name);
    let modified = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src/sink/ring", "crates/client/src"].iter().flat_map(|dir| std::fs::read_dir(root.join(dir)).expect("sources"));
    let sources = sources.flatten().map(|entry| entry.path()).chain([root.join(source)]);
    let newest = sources.filter_map(|path| modified(&path)).max();
    let fresh = modified(&example) >= newest;
    assert!(fresh && example.exists(), "{} is missing or older than its sources: run `cargo build --examples`", example.display());
    example
}

/// `examples/ring_writer.rs`.
pub fn ring_writer() -> PathBuf {
    static CHECKED: OnceLock<PathBuf> = OnceLock::new();
    CHECKED.get_or_init(|| example("ring_writer", "examples/ring_writer.rs")).clone()
}

/// `examples/rust/subscriber.rs`.
pub fn rust_subscriber() -> Command {
    static CHECKED: OnceLock<PathBuf> = OnceLock::new();
    emulated(CHECKED.get_or_init(|| example("rust_subscriber", "examples/rust/subscriber.rs")))
}

/// The example writer on `socket`, not waited for.
pub fn launch_writer(socket: &Path, options: &[&str]) -> Process {
    let mut command = emulated(&ring_writer());
    command.arg("--socket").arg(socket).args(options);
    Process::spawn(command)
}

/// The example writer, once it serves.
pub fn writer(socket: &Path, options: &[&str]) -> Process {
    let mut process = launch_writer(socket, options);
    assert_eq!(process.line(), "ready");
    process
}

/// Waits for `condition`; panics with `what` after `patience`.
pub fn until(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {patience:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reapers of this socket. One that waits for init to collect it has no command line any more.
pub fn reapers(socket: &Path) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let socket = socket.to_str().expect("UTF-8").as_bytes();
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|&byte| byte == 0);
        words.any(|word| word == b"reap-socket") && words.next() == Some(socket)
    })
    .collect()
}
