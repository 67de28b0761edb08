//! The clients in C and Python, and `view`, against everything that may listen on a mask socket (`lies.rs`; the one in Rust is tested
//! beside it). One clear sentence each, in time, with nothing left open; the C client under AddressSanitizer and UBSan.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::handmade::lies::{Liar, Lie, lies};
use super::support::{Scratch, c_subscriber, compile_with, compiled, emulated, python, runner, sanitizers};

fn here(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mask_ring").join(name)
}

/// Patience of a client in milliseconds: short where it is to run out, else as good as endless.
fn timeout_ms(lie: &Lie) -> u32 {
    match (lie.times_out, runner().is_empty()) {
        (true, true) => 1000,
        (true, false) => 5_000,
        (false, _) => 100_000,
    }
}

fn check(lie: &Lie, liar: &Liar, sentence: &str, words: &str) {
    let path = liar.path.to_str().expect("UTF-8");
    assert!(sentence.contains(path), "{} is said without the socket: {sentence}", lie.name);
    let rest = sentence.replace(path, "");
    assert!(rest.contains(words) && !rest.contains(char::is_control), "{}: {sentence:?}", lie.name);
}

/// Runs a follower that answers each line of its stdin (see liars.c); `language` is the index of its words.
fn all_lies_to(mut follower: Command, language: usize) {
    let mut child = follower.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a follower");
    let mut orders = child.stdin.take().expect("piped");
    let mut answers = BufReader::new(child.stdout.take().expect("piped")).lines();
    for lie in lies() {
        let liar = Liar::start(&lie);
        writeln!(orders, "{} {}", timeout_ms(&lie), liar.path.display()).expect("a live follower");
        let Some(Ok(answer)) = answers.next() else {
            let output = child.wait_with_output().expect("its end");
            panic!("no answer to {}: {}", lie.name, String::from_utf8_lossy(&output.stderr));
        };
        let mut parts = answer.splitn(3, ' ');
        let (before, after, sentence) = (parts.next(), parts.next(), parts.next().expect("a sentence"));
        check(&lie, &liar, sentence, lie.says[language]);
        assert_eq!(before, after, "descriptors and mappings before and after {}", lie.name);
    }
    drop(orders);
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_c_client_calls_every_lie_by_its_name() {
    let scratch = Scratch::new();
    let program = scratch.join("liars");
    compile_with(sanitizers(), &here("liars.c"), &program);
    all_lies_to(compiled(&program), 1);
}

#[test]
fn the_python_client_calls_every_lie_by_its_name() {
    let mut command = python();
    command.arg(here("liars.py"));
    all_lies_to(command, 2);
}

/// `view --save` paints what it receives: a lie must not reach the painter.
#[test]
fn view_calls_every_lie_by_its_name() {
    let scratch = Scratch::new();
    for lie in lies() {
        let liar = Liar::start(&lie);
        // `view` tries again where a daemon hung up or was full, and has to be told when to stop
        let retried = ["hangs-up", "refuses"].contains(&lie.name);
        let seconds = if retried { 1 } else { timeout_ms(&lie) / 1000 };
        let mut command = emulated(Path::new(env!("CARGO_BIN_EXE_eomt-edge")));
        command.args(["view", "--frames", "2", "--timeout", &seconds.to_string(), "--socket"]).arg(&liar.path);
        command.arg("--save").arg(scratch.join(lie.name));
        let output = command.output().expect("view");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{}: {stderr}", lie.name);
        assert!(!stdout.contains(|c: char| c.is_control() && c != '\n'), "{}: {stdout:?}", lie.name);
        check(&lie, &liar, stderr.trim_end(), if retried { "" } else { lie.says[0] });
    }
}

/// Where a process has no descriptor left for the ring's, the client says so, and does not call the daemon names.
#[test]
fn lost_descriptors_are_called_lost() {
    let sound: Vec<Lie> = lies().into_iter().filter(|lie| lie.name == "pipe-blocks").collect();
    // the client's own socket takes the last number, and the hello comes without its descriptors
    let mut rust = limited(Path::new(env!("CARGO_BIN_EXE_eomt-edge")));
    rust.arg("view");
    let c = limited(Path::new(c_subscriber().get_program()));
    let mut py = python();
    let script = "import os, resource, sys, eomt_edge_client\nfree = os.dup(0)\nos.close(free)\n\
                  resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))\nsys.exit(eomt_edge_client.main(sys.argv[1:]))";
    py.args(["-c", script]);
    // an emulator needs descriptors of its own
    let native = if runner().is_empty() { vec![("Rust", rust), ("C", c)] } else { Vec::new() };
    for (language, mut command) in native.into_iter().chain([("Python", py)]) {
        let liar = Liar::start(&sound[0]);
        let output = command.args(["--timeout", "60", "--socket"]).arg(&liar.path).output().expect("a client");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("descriptors did not arrive") && said.contains("ulimit"), "{language}: {said}");
    }
}

/// `program` with room for one descriptor.
fn limited(program: &Path) -> Command {
    let mut shell = Command::new("sh");
    let script = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; ulimit -n 4 && exec \"$@\"";
    shell.args(["-c", script, "sh"]).arg(program);
    shell
}
