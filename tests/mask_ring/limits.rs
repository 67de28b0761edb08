//! Places, floods and low limits.

use std::os::fd::OwnedFd;
use std::process::Command;

use eomt_edge_client::{ClientError, Subscriber};
use rustix::process::Uid;
use rustix::process::{Resource, Rlimit, prlimit};
use rustix::thread::set_thread_res_uid;

use super::hostile::{assert_alive, raw_socket};
use super::support::{PATIENCE, Scratch, emulated, launch_writer, ring_writer, runner, until, writer};

fn refusal(scratch: &Scratch) -> String {
    let error = Subscriber::connect(scratch.socket()).expect_err("no place");
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    error.to_string()
}

#[test]
fn one_user_cannot_take_all_the_places() {
    let scratch = Scratch::new();
    let _writer = writer(&scratch.socket(), &["--fps", "200", "--max-clients", "6", "--max-per-user", "3"]);
    let mut ours: Vec<Subscriber> = (0..3).map(|_| Subscriber::connect(scratch.socket()).expect("a place")).collect();
    let uid = rustix::process::geteuid().as_raw();
    let expected = format!("user {uid} has 3 readers already, ring.max_clients_per_user");
    assert!(refusal(&scratch).ends_with(&expected), "{}", refusal(&scratch));
    assert_alive(&mut ours[0]);
    // A place that was left is free for the client that comes right behind. Tries again: a child that another test of this process starts
    // holds the socket from its fork to its exec.
    for _ in 0..50 {
        drop(ours.pop());
        ours.push(Subscriber::connect_retry(scratch.socket(), PATIENCE).expect("the place just left"));
    }
    if uid != 0 {
        return; // only root can become somebody else
    }
    std::os::unix::fs::chown(scratch.socket(), Some(65_534), None).expect("root may");
    let socket = scratch.socket();
    let outsider = std::thread::spawn(move || {
        let nobody = Some(Uid::from_raw(65_534));
        set_thread_res_uid(nobody, nobody, nobody).expect("root may; this thread alone");
        assert_alive(&mut Subscriber::connect(socket).expect("a place for another user"));
    });
    outsider.join().expect("another user's reader");
}

#[test]
fn a_flood_of_connections_is_one_line_in_the_log_and_delays_nobody() {
    let scratch = Scratch::new();
    let mut process = writer(&scratch.socket(), &["--max-clients", "4"]);
    let mut crowd: Vec<Subscriber> = (0..4).map(|_| Subscriber::connect(scratch.socket()).expect("a place")).collect();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| (0..3000).for_each(|_| drop(raw_socket(&scratch.socket()))));
        while !flood.is_finished() {
            assert_alive(&mut crowd[0]);
        }
    });
    process.signal(rustix::process::Signal::TERM);
    process.end(PATIENCE);
    let log = process.stderr();
    let refusals: Vec<&str> = log.lines().filter(|line| line.contains("refused")).collect();
    // One at once, and one in ten seconds should this machine need so long.
    assert!((1..=20).contains(&refusals.len()), "{} lines", refusals.len());
    assert!(refusals[0].contains("it serves 4 readers already, its limit"), "{}", refusals[0]);
}

/// Turns of the server's thread would show as context switches: a thread that spins on a listener that it cannot serve makes thousands.
#[test]
fn without_a_descriptor_left_the_server_rests() {
    let scratch = Scratch::new();
    let process = writer(&scratch.socket(), &["--fps", "10"]);
    let mut honest = Subscriber::connect(scratch.socket()).expect("a live writer");
    // Fewer than are open: not even the spare one helps.
    prlimit(Some(process.pid()), Resource::Nofile, Rlimit { current: Some(3), maximum: Some(4096) }).expect("our own child");
    let crowd: Vec<OwnedFd> = (0..8).map(|_| raw_socket(&scratch.socket())).collect();
    let before = server_ticks(process.id());
    let from = super::next(&mut honest).sequence();
    until(PATIENCE, "twenty more frames", || super::next(&mut honest).sequence() > from + 20);
    let spent = server_ticks(process.id()) - before;
    assert!(spent < 50, "the server's thread spent {spent} hundredths of a second of CPU in about two seconds");
    drop(crowd);
    prlimit(Some(process.pid()), Resource::Nofile, Rlimit { current: Some(1024), maximum: Some(4096) }).expect("our own child");
    assert_alive(&mut Subscriber::connect_retry(scratch.socket(), PATIENCE).expect("room again"));
}

/// CPU time of the thread `mask-server`, in clock ticks.
fn server_ticks(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a live process").flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let server = stats.into_iter().find(|stat| stat.contains("(mask-server)")).expect("the server's thread");
    let fields: Vec<&str> = server.rsplit(')').next().expect("a stat line").split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

/// Under every limit on open files it starts, or says in one sentence why not.
#[test]
fn few_open_files_are_a_sentence() {
    if !runner().is_empty() {
        return; // the limit would be the emulator's
    }
    let scratch = Scratch::new();
    let mut started = 0;
    for limit in 4..24u64 {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\"")).arg(ring_writer());
        command.arg("--socket").arg(scratch.socket()).args(["--frames", "1", "--no-reaper"]);
        let output = command.output().expect("a shell");
        let (code, text) = (output.status.code(), String::from_utf8_lossy(&output.stderr));
        assert!(matches!(code, Some(0 | 1 | 127)), "{limit}: {:?} {text}", output.status);
        started += u32::from(code == Some(0));
        assert!(code == Some(0) || text.contains("files"), "{limit}: {text}");
        assert!(!text.contains("panicked"), "{limit}: {text}");
    }
    assert!(started > 5, "{started}");
    assert!(scratch.files().is_empty(), "{:?}", scratch.files());
}

/// Asked first, for a sentence that names the limit.
#[test]
fn a_low_limit_on_file_sizes_is_a_sentence() {
    if !runner().is_empty() {
        return; // the emulator does not tell the program of the limit
    }
    let scratch = Scratch::new();
    let mut command = emulated(&ring_writer());
    command.arg("--socket").arg(scratch.socket()).args(["--frames", "1"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 1; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    let output = shell.output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("FileSize"), "{:?} {text}", output.status);
}

#[test]
fn a_ring_beyond_the_machine_is_refused() {
    let scratch = Scratch::new();
    let mut process = launch_writer(&scratch.socket(), &["--width", "16384", "--height", "16384", "--slots", "64", "--rgb"]);
    assert_eq!(process.end(PATIENCE).code(), Some(1));
    // beyond what clients map; `check_room` has the share of the machine
    assert!(process.stderr().contains("more than the 4 GiB that clients map"), "{}", process.stderr());
}
