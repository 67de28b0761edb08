//! Readers that do harm, or many of them.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use eomt_edge_client::Subscriber;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FallocateFlags, fallocate, fstat, ftruncate};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    recvmsg, send, socket_with,
};
use rustix::process::{Resource, Rlimit, prlimit};

use super::support::{PATIENCE, Scratch, python, runner, until, writer};
use super::{check_content, next};

/// The protocol by hand.
pub struct RawReader {
    pub socket: OwnedFd,
    memfd: OwnedFd,
    pub event: OwnedFd,
}

pub fn raw_socket(path: &Path) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket");
    connect(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("a live writer");
    socket
}

pub fn raw_reader(path: &Path) -> RawReader {
    let socket = raw_socket(path);
    let mut bytes = [0u8; 128];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).expect("the hello");
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let [memfd, event] = <[OwnedFd; 2]>::try_from(fds).expect("two descriptors");
    RawReader { socket, memfd, event }
}

/// The server has hung up.
pub fn dropped(reader: &RawReader) -> bool {
    let (_, len) = match recv(&reader.socket, &mut [0u8; 8], RecvFlags::DONTWAIT) {
        Ok((_, len)) => ((), len),
        Err(Errno::AGAIN) => return false,
        Err(Errno::CONNRESET) => return true,
        Err(errno) => panic!("recv failed: {errno}"),
    };
    len == 0
}

/// Full speed goes on, seen by an honest reader.
pub fn assert_alive(honest: &mut Subscriber) {
    let from = next(honest).sequence();
    until(PATIENCE, "a hundred more frames", || {
        let frame = next(honest);
        check_content(&frame);
        frame.sequence() > from + 100
    });
}

#[test]
fn a_reader_cannot_change_the_memory() {
    let scratch = Scratch::new();
    let _writer = writer(&scratch.socket(), &[]);
    let mut honest = Subscriber::connect(scratch.socket()).expect("a live writer");
    let reader = raw_reader(&scratch.socket());
    let size = fstat(&reader.memfd).expect("a memfd").st_size as u64;
    assert_eq!(rustix::io::write(&reader.memfd, b"x"), Err(Errno::PERM));
    assert_eq!(rustix::io::pwrite(&reader.memfd, b"x", size), Err(Errno::PERM));
    assert_eq!(ftruncate(&reader.memfd, 0), Err(Errno::PERM));
    assert_eq!(ftruncate(&reader.memfd, 2 * size), Err(Errno::PERM));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(fallocate(&reader.memfd, punch, 0, size), Err(Errno::PERM));
    // mmap is unsafe in Rust and an ordinary call in Python, which opens the memfd anew on top.
    let script = "import errno, mmap, os, sys\nfd = os.open(sys.argv[1], os.O_RDWR)\nmmap.mmap(fd, 4096, prot=mmap.PROT_READ)\ntry:\n    \
                  mmap.mmap(fd, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)\nexcept OSError as error:\n    \
                  print(errno.errorcode[error.errno])";
    let fd = format!("/proc/{}/fd/{}", std::process::id(), reader.memfd.as_raw_fd());
    let output = python().args(["-c", script, &fd]).output().expect("Python");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "EPERM", "{}", String::from_utf8_lossy(&output.stderr));
    assert_alive(&mut honest);
}

#[test]
fn a_reader_that_talks_is_dropped() {
    let scratch = Scratch::new();
    let _writer = writer(&scratch.socket(), &["--fps", "200"]);
    let mut honest = Subscriber::connect(scratch.socket()).expect("a live writer");
    let talker = raw_reader(&scratch.socket());
    send(&talker.socket, b"GET / HTTP/1.1\r\n\r\n", SendFlags::NOSIGNAL).expect("room in the socket");
    until(PATIENCE, "the server to drop a talker", || dropped(&talker));
    assert_alive(&mut honest);
}

/// Open descriptors, threads and resident KiB of a process.
fn footprint(pid: u32) -> (usize, u64, u64) {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a live process").count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a live process");
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect(key);
        line.split_whitespace().next().and_then(|word| word.parse().ok()).expect(key)
    };
    (fds, number("Threads:"), number("VmRSS:"))
}

#[test]
fn a_thousand_connections_leak_nothing() {
    let scratch = Scratch::new();
    let process = writer(&scratch.socket(), &["--fps", "500"]);
    let cycle = |number: u32| {
        if number.is_multiple_of(5) {
            // Hangs up at once, most often before the hello.
            drop(raw_socket(&scratch.socket()));
            return;
        }
        let mut reader = Subscriber::connect(scratch.socket()).expect("a live writer with room");
        if number.is_multiple_of(3) {
            check_content(&next(&mut reader));
        }
    };
    let (fds, threads, _) = footprint(process.id());
    (0..200).for_each(cycle);
    let (_, _, rss) = footprint(process.id());
    (0..1000).for_each(cycle);
    until(PATIENCE, "the last connections to be forgotten", || footprint(process.id()).0 == fds);
    let (_, threads_after, rss_after) = footprint(process.id());
    assert_eq!(threads_after, threads);
    // An emulator keeps what it translates.
    let growth_max = if runner().is_empty() { 512 } else { 16 * 1024 };
    assert!(rss_after <= rss + growth_max, "resident memory went from {rss} to {rss_after} KiB");
}

#[test]
fn without_descriptors_left_the_writer_goes_on() {
    let scratch = Scratch::new();
    let process = writer(&scratch.socket(), &["--fps", "200"]);
    let mut honest = Subscriber::connect(scratch.socket()).expect("a live writer");
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.id())).expect("a live process");
    let open: Vec<u64> = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // Two readers take two descriptors each, and one number stays for the next accept.
    let five_left = (0..4096).filter(|fd| !open.contains(fd)).nth(5).expect("a free number");
    let limit = |files: u64| {
        let limit = Rlimit { current: Some(files), maximum: Some(4096) };
        prlimit(Some(process.pid()), Resource::Nofile, limit).expect("our own child");
    };
    limit(five_left);
    let crowd: Vec<OwnedFd> = (0..10).map(|_| raw_socket(&scratch.socket())).collect();
    let hung_up = |socket: &OwnedFd| {
        let mut bytes = [0u8; 128];
        poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 })).expect("poll");
        !matches!(recv(socket, &mut bytes, RecvFlags::DONTWAIT), Ok((_, 128)))
    };
    let turned_away = crowd.iter().filter(|socket| hung_up(socket)).count();
    assert!((6..10).contains(&turned_away), "{turned_away} of 10 turned away with room for two or so");
    assert_alive(&mut honest);
    drop(crowd);
    limit(1024);
    let mut late = Subscriber::connect_retry(scratch.socket(), PATIENCE).expect("room again");
    check_content(&next(&mut late));
}
