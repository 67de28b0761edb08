//! One thread of a real daemon stands still (ptrace), and somebody notices: who, what is said, how it ends.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::daemon::{Daemon, PATIENCE, connect, next, run};
use common::{Scratch, python};

/// `run`, of which `hang` stops one thread on demand.
struct Hanging {
    daemon: Daemon,
    manager: UnixDatagram,
}

impl Hanging {
    /// A daemon that waits for frames that do not come; systemd's watchdog, if it has one, allows `watchdog`.
    fn start(scratch: &Scratch, thread: &str, watchdog: Option<Duration>) -> Hanging {
        Hanging::start_with(scratch, thread, watchdog, &[])
    }

    fn start_with(scratch: &Scratch, thread: &str, watchdog: Option<Duration>, settings: &[&str]) -> Hanging {
        let (fifo, notify) = (scratch.path("frames"), scratch.path("notify.sock"));
        assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
        let manager = UnixDatagram::bind(&notify).expect("a socket");
        manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let source = format!("pipe:{}", fifo.display());
        let settings = [&["source.size=64x48", "source.no_signal_after=0.1"], settings].concat();
        let wanted = run(&scratch.path("masks.sock"), &source, &settings);
        let mut command = python();
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/guest/hang.py")).arg(thread);
        command.arg(wanted.get_program()).args(wanted.get_args()).env("NOTIFY_SOCKET", notify).env_remove("WATCHDOG_PID");
        match watchdog {
            Some(limit) => command.env("WATCHDOG_USEC", limit.as_micros().to_string()),
            None => command.env_remove("WATCHDOG_USEC"),
        };
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("Python");
        let hanging = Hanging { daemon: Daemon(child), manager };
        while !hanging.hear().contains("READY=1") {}
        hanging
    }

    /// The next message to the service manager.
    fn hear(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self.manager.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    /// Stops the thread; returns once it stands still.
    fn hang(&mut self) {
        let child: &mut Child = &mut self.daemon.0;
        child.stdin.as_mut().expect("piped").write_all(b"\n").expect("it reads");
        let mut said = [0; 10];
        child.stdout.as_mut().expect("piped").read_exact(&mut said).expect("it says that the thread stopped");
        assert_eq!(&said, b"stopped by");
    }

    /// The exit code and everything that was said.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.daemon.wait();
        let mut log = String::new();
        self.daemon.0.stderr.take().expect("piped").read_to_string(&mut log).expect("UTF-8");
        (code, log)
    }
}

#[test]
fn an_inference_that_hangs_ends_the_daemon_by_the_watchdogs_limit() {
    let scratch = Scratch::new("hang-main");
    let mut daemon = Hanging::start(&scratch, "main", Some(Duration::from_secs(8)));
    while !daemon.hear().contains("WATCHDOG=1") {}
    daemon.hang();
    let (code, log) = daemon.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("inference: it has made no progress for 8 s; the daemon ends") && log.contains("WatchdogSec="), "{log}");
}

#[test]
fn a_mask_server_that_hangs_ends_the_daemon_as_a_failure() {
    let scratch = Scratch::new("hang-server");
    let mut daemon = Hanging::start(&scratch, "mask-server", None);
    let mut subscriber = connect(&scratch.path("masks.sock"));
    assert!(next(&mut subscriber).no_signal());
    daemon.hang();
    let (code, log) = daemon.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("eomt-edge: the mask server: it has made no progress for 10 s; a new process takes its place"), "{log}");
}

#[test]
fn a_source_that_hangs_ends_the_daemon_as_a_failure_that_names_it() {
    let scratch = Scratch::new("hang-capture");
    let mut daemon = Hanging::start(&scratch, "eomt-capture", None);
    daemon.hang();
    let (code, log) = daemon.end();
    assert_eq!(code, Some(1), "{log}");
    let wanted = format!("eomt-edge: pipe:{}: no answer for 60 s", scratch.path("frames").display());
    assert!(log.contains(&wanted), "{log}");
}

#[test]
fn a_supervisor_that_hangs_feeds_nobody_and_ends_the_daemon_without_systemd_too() {
    let scratch = Scratch::new("hang-supervisor");
    let mut daemon = Hanging::start(&scratch, "eomt-supervisor", Some(Duration::from_secs(60)));
    while !daemon.hear().contains("WATCHDOG=1") {}
    daemon.hang();
    // what was sent before is still in the queue; nothing is added to it
    daemon.manager.set_nonblocking(true).expect("a socket");
    let mut buffer = [0; 4096];
    while daemon.manager.recv(&mut buffer).is_ok() {}
    daemon.manager.set_nonblocking(false).expect("a socket");
    loop {
        let message = daemon.hear();
        assert!(!message.contains("WATCHDOG=1"), "{message}");
        if message.contains("STOPPING=1") {
            break;
        }
    }
    let (code, log) = daemon.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("eomt-edge: the supervisor: it has made no progress for 30 s; a new process takes its place"), "{log}");
}

#[test]
fn a_control_socket_that_hangs_is_left_behind_and_frames_go_on() {
    let scratch = Scratch::new("hang-control");
    let socket = scratch.path("control.sock");
    let mut daemon = Hanging::start_with(&scratch, "eomt-control", None, &[&format!("control.socket={}", socket.display())]);
    let mut subscriber = connect(&scratch.path("masks.sock"));
    assert!(next(&mut subscriber).no_signal() && socket.exists());
    daemon.hang();
    while !daemon.hear().contains("the control socket: it has made no progress for 3") {}
    assert!(!socket.exists(), "nobody is to wait there");
    assert!((0..3).all(|_| next(&mut subscriber).no_signal()));
}

#[test]
fn a_daemon_that_was_stopped_as_a_whole_blames_nobody_afterwards() {
    let scratch = Scratch::new("stopped");
    // every limit is over while it stands still: an eighth of this one is the longest pause between two looks
    let mut command = run(&scratch.path("masks.sock"), "scenes", &[]);
    command.env("WATCHDOG_USEC", "4000000").env_remove("NOTIFY_SOCKET");
    let mut daemon = Daemon(command.spawn().expect("the daemon starts"));
    let mut subscriber = connect(&scratch.path("masks.sock"));
    next(&mut subscriber);
    daemon.signal(rustix::process::Signal::STOP);
    std::thread::sleep(Duration::from_secs(5));
    daemon.signal(rustix::process::Signal::CONT);
    for _ in 0..3 {
        next(&mut subscriber);
    }
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
}
