//! The socket's name: its lock, and who takes it away while the daemon runs.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use eomt_edge_client::Subscriber;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::Signal;

use super::hostile::assert_alive;
use super::support::{PATIENCE, Scratch, launch_writer, reapers, until, writer};
use super::{check_content, next, refusal};

const LOCK: &str = ".masks.sock.lock";

/// Whoever may list the directory may lock it, which is nobody's business here.
#[test]
fn a_lock_on_the_directory_stops_nobody() {
    let scratch = Scratch::new();
    let dir = std::fs::File::open(scratch.join(".")).expect("the directory");
    flock(&dir, FlockOperation::LockExclusive).expect("nobody else has it");
    let mut process = writer(&scratch.socket(), &["--fps", "50"]);
    assert_eq!(scratch.files(), ["masks.sock"], "the lock file is gone");
    process.signal(Signal::TERM);
    process.end(PATIENCE);
    assert!(scratch.files().is_empty());
}

/// The question "who listens there?" and the rename are one step to other daemons.
#[test]
fn a_daemon_waits_for_the_lock_of_another() {
    let scratch = Scratch::new();
    let mode = Mode::RUSR | Mode::WUSR;
    let lock = rustix::fs::open(scratch.join(LOCK), OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, mode).expect("a free name");
    flock(&lock, FlockOperation::LockExclusive).expect("nobody else has it");
    assert!(refusal(&scratch.socket()).contains("Locked"), "gives up after a while");
    let mut patient = launch_writer(&scratch.socket(), &["--fps", "50"]);
    assert!(patient.lines.recv_timeout(Duration::from_millis(300)).is_err() && scratch.files() == [LOCK]);
    drop(lock);
    assert_eq!(patient.line(), "ready");
    assert_eq!(scratch.files(), ["masks.sock"], "what a killed daemon leaves is used and removed");
}

#[test]
fn what_is_no_lock_file_of_ours_stays_untouched() {
    let scratch = Scratch::new();
    let lock = scratch.join(LOCK);
    let expect = |what: &str| {
        let complaint = refusal(&scratch.socket());
        assert!(complaint.contains("LockFile") && complaint.contains(what), "{what}: {complaint}");
    };
    std::fs::write(scratch.join("precious"), "precious").expect("a writable directory");
    for target in ["precious", "nothing"] {
        symlink(target, &lock).expect("a free name");
        expect("it is a symbolic link");
        std::fs::remove_file(&lock).expect("still there");
    }
    assert_eq!(std::fs::read_to_string(scratch.join("precious")).expect("still there"), "precious");
    assert!(!scratch.join("nothing").exists(), "nothing was made through the link");
    std::fs::create_dir(&lock).expect("a free name");
    expect("it is a directory");
    std::fs::remove_dir(&lock).expect("still there");
    rustix::fs::mknodat(rustix::fs::CWD, &lock, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a free name");
    expect("it is no regular file");
    std::fs::remove_file(&lock).expect("still there");
    std::fs::write(&lock, "").expect("a free name");
    std::fs::set_permissions(&lock, std::fs::Permissions::from_mode(0o666)).expect("our own file");
    expect("others may open it (its mode is 666, not 600)");
    std::fs::set_permissions(&lock, std::fs::Permissions::from_mode(0o600)).expect("our own file");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&lock, Some(65_534), None).expect("root may");
        expect("it belongs to user 65534, and this is user 0");
    }
    assert!(lock.exists() && !scratch.socket().exists());
}

#[test]
fn a_socket_that_is_deleted_comes_back_as_it_was() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let mut process = writer(&socket, &["--fps", "100"]);
    let mut reader = Subscriber::connect(&socket).expect("a live writer");
    let before = std::fs::symlink_metadata(&socket).expect("the socket");
    for round in 0..3 {
        std::fs::remove_file(&socket).expect("ours to remove");
        until(PATIENCE, "the socket to come back", || socket.exists());
        let after = std::fs::symlink_metadata(&socket).expect("the socket");
        assert_eq!((after.mode(), after.gid()), (before.mode(), before.gid()), "round {round}");
        check_content(&next(&mut Subscriber::connect_retry(&socket, PATIENCE).expect("the same writer")));
        check_content(&next(&mut reader));
    }
    // The reaper knows the new file.
    process.signal(Signal::KILL);
    process.end(PATIENCE);
    until(PATIENCE, "the reaper to do its work", || scratch.files().is_empty() && reapers(&socket).is_empty());
}

#[test]
fn whoever_takes_the_name_keeps_it_and_the_readers_stay() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let mut process = writer(&socket, &["--fps", "200"]);
    let mut reader = Subscriber::connect(&socket).expect("a live writer");
    // An ordinary file, then a live socket of another program.
    std::fs::rename(&socket, scratch.join("elsewhere")).expect("ours to move");
    std::fs::write(&socket, "precious").expect("a free name");
    std::thread::sleep(Duration::from_millis(1500)); // time in which a mistake would show
    assert_alive(&mut reader);
    assert_eq!(std::fs::read_to_string(&socket).expect("still there"), "precious");
    std::fs::remove_file(&socket).expect("ours to remove");
    let foreign = UnixListener::bind(&socket);
    if let Ok(foreign) = foreign {
        let inode = std::fs::symlink_metadata(&socket).expect("the socket").ino();
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(std::fs::symlink_metadata(&socket).expect("the socket").ino(), inode, "a live socket is left alone");
        assert_alive(&mut reader);
        drop(foreign);
    }
    // A dead one is replaced.
    let mut late = loop {
        if let Ok(reader) = Subscriber::connect_retry(&socket, PATIENCE) {
            break reader;
        }
    };
    check_content(&next(&mut late));
    process.signal(Signal::TERM);
    process.end(PATIENCE);
    let log = process.stderr();
    assert!(log.contains("is gone, and nobody new finds a way in"), "{log}");
    assert!(!socket.exists());
}

#[test]
fn a_directory_that_is_deleted_costs_nothing_but_new_readers() {
    let scratch = Scratch::new();
    let dir = scratch.join("run");
    std::fs::create_dir(&dir).expect("a free name");
    let socket = dir.join("masks.sock");
    let mut process = writer(&socket, &["--fps", "200"]);
    let mut reader = Subscriber::connect(&socket).expect("a live writer");
    std::fs::remove_dir_all(&dir).expect("ours to remove");
    std::thread::sleep(Duration::from_millis(1500)); // some looks of the server's thread
    assert_alive(&mut reader);
    std::fs::create_dir(&dir).expect("a free name");
    until(PATIENCE, "the socket in the new directory", || socket.exists());
    assert_alive(&mut Subscriber::connect_retry(&socket, PATIENCE).expect("the same writer"));
    process.signal(Signal::TERM);
    assert_eq!(process.end(PATIENCE).code(), Some(0));
    assert!(std::fs::read_dir(&dir).expect("the directory").next().is_none(), "nothing left behind");
}
