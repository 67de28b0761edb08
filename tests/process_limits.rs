//! Every limit of the process (getrlimit(2)), lowered by hand: one sentence and an exit code, or no difference at all.

mod common;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::daemon::{Daemon, connect, next, run};
use common::{Scratch, data, eomt_edge, shipped_model, succeed};

/// `command` under `ulimit FLAG VALUE`, both limits, in `dash` or any other shell.
fn limited(limit: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit {limit} && exec \"$@\"")).arg("sh").arg(command.get_program()).args(command.get_args());
    // no more than the sentence
    shell.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    shell
}

/// The last of the lines that are no log lines, and the code.
fn sentence(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with('[')).collect();
    assert!(lines.len() <= 1 && !said.contains("panicked") && !said.contains("overflowed"), "{said}");
    (output.status.code(), lines.first().unwrap_or(&"").to_string())
}

fn three_frames(scratch: &Scratch) -> Command {
    let mut command = run(&scratch.path("masks.sock"), "scenes", &[]);
    command.args(["--frames", "3"]);
    command
}

fn convert(scratch: &Scratch, precision: &str) -> Command {
    let mut command = eomt_edge();
    command.arg("convert").arg(data("nano")).args(["--precision", precision, "--no-check", "-o"]).arg(scratch.path("out.onnx"));
    command
}

fn segment(scratch: &Scratch) -> Command {
    let mut command = eomt_edge();
    command.arg("segment").arg("--model").arg(shipped_model()).arg(first_picture()).arg("-o").arg(scratch.path("out"));
    command
}

fn first_picture() -> std::path::PathBuf {
    let mut pictures: Vec<_> = std::fs::read_dir(data("clip")).expect("pictures").map(|entry| entry.expect("an entry").path()).collect();
    pictures.sort();
    pictures.swap_remove(0)
}

/// Of a daemon that gets as far as the loader of shared libraries.
#[test]
fn without_descriptors_the_daemon_says_so() {
    let scratch = Scratch::new("limits-files");
    let mut works = 0;
    for limit in 4..=24 {
        let output = limited(&format!("-n {limit}"), &three_frames(&scratch)).output().expect("a shell");
        match sentence(&output) {
            (Some(0), _) => works += 1,
            (Some(1), said) => {
                assert!(said.starts_with("eomt-edge: ") && said.contains("Too many open files") && works == 0, "{limit}: {said}")
            }
            other => panic!("{limit}: {other:?}"),
        }
        assert!(!scratch.path("masks.sock").exists(), "{limit}: the socket is gone");
    }
    assert!(works > 0, "24 descriptors are enough");
}

/// A daemon that has just enough to start turns readers away, and does not spin over it.
#[test]
fn a_daemon_without_descriptors_for_readers_rests() {
    let scratch = Scratch::new("limits-readers");
    let socket = scratch.path("masks.sock");
    let fifo = scratch.path("frames");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let least = (4..=24).find(|limit| limited(&format!("-n {limit}"), &three_frames(&scratch)).output().expect("a shell").status.success());
    let least = least.expect("24 are enough");
    let wanted = run(&socket, &format!("pipe:{}", fifo.display()), &["source.size=64x48"]);
    let mut daemon = Daemon(limited(&format!("-n {}", least + 2), &wanted).stderr(Stdio::null()).spawn().expect("a shell"));
    let deadline = std::time::Instant::now() + common::daemon::PATIENCE;
    while !socket.exists() {
        assert!(std::time::Instant::now() < deadline && daemon.0.try_wait().expect("a child").is_none(), "no socket");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let ticks = |daemon: &Daemon| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.0.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    // more readers than descriptors, all kept open
    let readers: Vec<_> = (0..32).map(|_| std::os::unix::net::UnixStream::connect(&socket)).collect();
    let before = ticks(&daemon);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let used = ticks(&daemon) - before;
    // CPU time, of which a thread that spins uses 300 ticks of 10 ms here
    assert!(used < 150, "{used} ticks of CPU time without a single frame");
    drop(readers);
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn a_file_that_may_not_grow_is_an_error_and_leaves_nothing() {
    let scratch = Scratch::new("limits-size");
    for limit in [0, 1] {
        let limit = format!("-f {limit}");
        let (code, said) = sentence(&limited(&limit, &three_frames(&scratch)).output().expect("a shell"));
        assert!(code == Some(1) && said.contains("mask ring") && said.contains("RLIMIT_FSIZE"), "{code:?} {said}");
        let (code, said) = sentence(&limited(&limit, &convert(&scratch, "f32")).output().expect("a shell"));
        assert!(code == Some(1) && said.contains("out.onnx") && said.contains("File too large"), "{code:?} {said}");
        let (code, said) = sentence(&limited(&limit, &segment(&scratch)).output().expect("a shell"));
        assert!(code == Some(1) && said.contains("File too large"), "{code:?} {said}");
    }
    assert!(!scratch.path("out.onnx").exists() && !scratch.path("masks.sock").exists());
}

/// What is started by `exec:` behaves as if a shell had started it.
#[test]
fn a_source_s_command_has_the_usual_signals() {
    let scratch = Scratch::new("limits-signals");
    let uri = format!("exec:grep -E '^Sig(Ign|Cgt)' /proc/self/status > {}; sleep 1000", scratch.path("signals").display());
    let mut daemon = Daemon(run(&scratch.path("masks.sock"), &uri, &["source.size=64x48"]).spawn().expect("the daemon starts"));
    next(&mut connect(&scratch.path("masks.sock")));
    let text = std::fs::read_to_string(scratch.path("signals")).expect("it was written");
    for line in text.lines() {
        let mask = u64::from_str_radix(line.split_whitespace().last().expect("a mask"), 16).expect("hexadecimal");
        let (pipe, size) = (1 << 12, 1 << 24); // SIGPIPE is 13, SIGXFSZ is 25
        assert_eq!(mask & (pipe | size), 0, "{text}");
    }
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
}

/// Address space and data, from what the loader of shared libraries leaves on: it works, or says that there is no memory or no thread.
#[test]
fn without_memory_there_is_a_sentence() {
    if std::env::var_os("EOMT_EDGE_TEST_RUNNER").is_some() {
        return; // the limit would be the emulator's
    }
    let scratch = Scratch::new("limits-memory");
    // KiB; the loader of shared libraries needs as much as the program's file has, and has words of its own below that
    let file = std::fs::metadata(env!("CARGO_BIN_EXE_eomt-edge")).expect("the program").len() / 1024;
    let spaces = [20_000, 40_000, 80_000].map(|more| format!("-v {}", file + more));
    let data = [5_000, 10_000, 20_000, 50_000].map(|data| format!("-d {data}"));
    for limit in spaces.iter().chain(&data) {
        for command in [three_frames(&scratch), convert(&scratch, "int8"), segment(&scratch)] {
            let (code, said) = sentence(&limited(limit, &command).output().expect("a shell"));
            let reason = ["out of memory", "temporarily unavailable", "Cannot allocate memory"].iter().any(|reason| said.contains(reason));
            assert!(
                code == Some(0) || code == Some(1) && said.starts_with("eomt-edge: ") && reason,
                "{limit} {command:?}: {code:?} {said}"
            );
            assert!(code == Some(0) || !scratch.path("out.onnx").exists(), "{limit}: nothing half-written stays");
            let _ = std::fs::remove_file(scratch.path("out.onnx"));
        }
    }
}

/// A new model needs room beside the one that runs: where a limit leaves none, the reload is refused, and frames go on in any case.
#[test]
fn a_reload_without_room_is_refused() {
    if std::env::var_os("EOMT_EDGE_TEST_RUNNER").is_some() {
        return; // the limit would be the emulator's
    }
    let scratch = Scratch::new("limits-reload");
    let mut refusals = Vec::new();
    for (resource, mebibytes) in [("data", 8), ("data", 16), ("data", 24), ("data", 32), ("data", 48), ("as", 20), ("as", 60), ("as", 120)]
    {
        let (socket, log) = (scratch.path("masks.sock"), scratch.path("log"));
        let stderr = std::fs::File::create(&log).expect("a log");
        let mut daemon = Daemon(run(&socket, "scenes", &["source.fps=0"]).stderr(stderr).spawn().expect("the daemon starts"));
        let pid = daemon.0.id();
        let mut subscriber = connect(&socket);
        // buffers have their sizes by then
        (0..50).for_each(|_| drop(next(&mut subscriber)));
        let more = held(pid, resource) + (mebibytes << 20);
        set_soft(pid, resource, &more.to_string());
        daemon.signal(rustix::process::Signal::HUP);
        let said = wait_for(&log, &["reload refused", "the configuration was read again"], 1);
        // a reload makes readers connect anew
        let mut subscriber = connect(&socket);
        let seen = next(&mut subscriber).sequence();
        assert!(std::iter::repeat_with(|| next(&mut subscriber)).take(20).all(|frame| frame.sequence() > seen), "{resource}");
        let refused: Vec<&str> = said.lines().filter(|line| line.contains("reload refused")).collect();
        if let Some(sentence) = refused.first() {
            let reason =
                ["out of memory", "temporarily unavailable", "Cannot allocate memory"].iter().any(|reason| sentence.contains(reason));
            assert!(refused.len() == 1 && sentence.contains("onnx") && reason, "{resource} {mebibytes}: {said}");
            refusals.push((resource, mebibytes));
        }
        set_soft(pid, resource, "unlimited");
        daemon.signal(rustix::process::Signal::HUP);
        wait_for(&log, &["the configuration was read again"], 2 - refused.len());
        next(&mut connect(&socket));
        daemon.signal(rustix::process::Signal::TERM);
        assert_eq!(daemon.wait(), Some(0));
    }
    println!("refused: {refusals:?}");
    assert!(refusals.contains(&("data", 8)) && refusals.contains(&("as", 20)), "{refusals:?}");
}

/// What the limit counts, bytes.
fn held(pid: u32, resource: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = if resource == "data" { "VmData:" } else { "VmSize:" };
    let held = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
    held.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Changes the soft limit of a process that runs.
fn set_soft(pid: u32, resource: &str, limit: &str) {
    succeed(Command::new("prlimit").arg(format!("--pid={pid}")).arg(format!("--{resource}={limit}:")));
}

/// Waits for `count` lines with one of `words`; returns the log.
fn wait_for(log: &Path, words: &[&str], count: usize) -> String {
    let deadline = std::time::Instant::now() + common::daemon::PATIENCE;
    loop {
        let text = std::fs::read_to_string(log).expect("a log");
        if text.lines().filter(|line| words.iter().any(|word| line.contains(word))).count() >= count {
            return text;
        }
        assert!(std::time::Instant::now() < deadline, "no {words:?}: {text}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_small_stack_grows_or_is_named() {
    let scratch = Scratch::new("limits-stack");
    let (code, said) = sentence(&limited("-s 64", &three_frames(&scratch)).output().expect("a shell"));
    assert_eq!((code, said.as_str()), (Some(1), "eomt-edge: the stack is too small: 1024 KiB are needed (`ulimit -s`, LimitSTACK=)"));
    succeed(&mut limited("-S -s 64", &three_frames(&scratch)));
}

#[test]
fn what_the_program_does_not_use_may_be_nothing() {
    let scratch = Scratch::new("limits-rest");
    // core, locked memory, signals in a queue, POSIX message queues, niceness, real-time priority
    for resource in ["core", "memlock", "sigpending", "msgqueue", "nice", "rtprio"] {
        let command = three_frames(&scratch);
        let mut prlimit = Command::new("prlimit");
        prlimit.arg(format!("--{resource}=0:0")).arg(command.get_program()).args(command.get_args());
        succeed(&mut prlimit);
    }
}

/// RLIMIT_CPU sends SIGXCPU at its soft limit and SIGKILL at its hard one.
#[test]
fn cpu_time_that_is_over_is_named() {
    let scratch = Scratch::new("limits-cpu");
    let wanted = run(&scratch.path("masks.sock"), &format!("replay:{}@0", data("clip").display()), &[]);
    let mut prlimit = Command::new("prlimit");
    prlimit.arg("--cpu=2:1000").arg(wanted.get_program()).args(wanted.get_args());
    let (code, said) = sentence(&prlimit.env_remove("RUST_BACKTRACE").output().expect("prlimit"));
    assert_eq!(code, Some(1));
    assert_eq!(said, "eomt-edge: the CPU time that this process may use is over (`ulimit -t`, LimitCPU=)");
    assert!(!scratch.path("masks.sock").exists());
}

/// RLIMIT_NPROC does not bind root: as root, the program runs as nobody.
#[test]
fn without_threads_there_is_a_sentence() {
    let scratch = Scratch::new("limits-threads");
    let (program, model) = (scratch.path("eomt-edge"), scratch.path("model.onnx"));
    std::fs::copy(env!("CARGO_BIN_EXE_eomt-edge"), &program).expect("a copy");
    std::fs::copy(shipped_model(), &model).expect("a copy");
    let mut command = common::command(&program);
    command.args(["run", "--source", "scenes", "--frames", "3", "--model"]).arg(&model);
    command.arg("--set").arg(format!("ring.socket={}", scratch.path("masks.sock").display()));
    let mut limited = Command::new("prlimit"); // not every shell's ulimit knows it
    limited.arg("--nproc=1:1").arg(command.get_program()).args(command.get_args());
    if rustix::process::geteuid().is_root() {
        let mut user = Command::new("setpriv");
        user.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(limited.get_program()).args(limited.get_args());
        open_up(Path::new(&scratch.path("")));
        limited = user;
    }
    let (code, said) = sentence(&limited.env_remove("RUST_BACKTRACE").output().expect("prlimit"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("eomt-edge: no thread for the supervisor (`ulimit -u`"), "{said}");
}

fn open_up(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777)).expect("our directory");
}
