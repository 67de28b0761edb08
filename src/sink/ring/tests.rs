//! Writer, server and reader of one ring within this process; `tests/mask_ring.rs` has what takes several.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use eomt_edge_client::{ClientError, MaskFrame, Subscriber};
use eomt_edge_core::data::{FrameReport, Segment};
use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};

use super::{MaskServer, RingConfig, RingError, RingWriter, ServerConfig};

/// Waiting for so long means that it never comes.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(120));

/// A directory of its own per test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("eomt-ring-unit-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).expect("a directory for the test");
        Scratch(dir)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("masks.sock")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn small() -> RingConfig {
    RingConfig { slots: 3, max_width: 8, max_height: 6, max_segments: 2, checksum: true, ..RingConfig::default() }
}

fn ring_of(config: &RingConfig) -> RingWriter {
    RingWriter::create(config, r#"{"labels": ["sky", "car"], "task": "panoptic"}"#, 5).expect("a small ring")
}

fn segment(id: u16) -> Segment {
    Segment { id, category_id: 1, score: 0.5, area: 1, bbox: [0, 0, 1, 1], track_id: 9 }
}

fn publish(ring: &mut RingWriter, width: u32, height: u32, value: u16) -> u64 {
    let mut slot = ring.begin(width, height).expect("a frame that fits");
    slot.ids().fill(value);
    slot.finish(&FrameReport { sequence: 100 + u64::from(value), ..FrameReport::default() }, &[segment(value)])
}

#[test]
fn frames_of_changing_size_survive_many_wraparounds() {
    let scratch = Scratch::new();
    let mut ring = ring_of(&small());
    let server = MaskServer::start(ServerConfig::new(scratch.socket()), &ring).expect("a free path");
    let mut reader = Subscriber::connect(server.path()).expect("a live server");
    assert_eq!((reader.labels(), reader.generation()), (&["sky".to_owned(), "car".to_owned()][..], 1));
    assert_eq!(reader.metadata(), r#"{"labels": ["sky", "car"], "task": "panoptic"}"#);
    let mut frame = MaskFrame::default();
    for round in 1..=100u16 {
        let (width, height) = (1 + u32::from(round) % 8, 1 + u32::from(round) % 6);
        assert_eq!(publish(&mut ring, width, height, round), u64::from(round));
        assert!(reader.next_into(&mut frame, PATIENCE).expect("a live ring"), "frame {round}");
        assert_eq!((frame.sequence(), frame.info.frame_sequence), (u64::from(round), 100 + u64::from(round)));
        assert_eq!((frame.width(), frame.height()), (width, height));
        assert_eq!(frame.ids, vec![round; (width * height) as usize]);
        assert_eq!((frame.segments.len(), frame.segments[0].id, frame.segments[0].bbox), (1, round, [0, 0, 1, 1]));
        assert_eq!((frame.checksum_ok(), frame.rgb(), frame.truncated()), (Some(true), None, false));
    }
    assert_eq!((reader.skipped(), reader.retries()), (0, 0));
}

#[test]
fn an_unfinished_slot_is_never_published() {
    let scratch = Scratch::new();
    let mut ring = ring_of(&small());
    let server = MaskServer::start(ServerConfig::new(scratch.socket()), &ring).expect("a free path");
    publish(&mut ring, 4, 4, 1);
    for _ in 0..5 {
        ring.begin(8, 6).expect("a slot").ids().fill(77);
    }
    let mut reader = Subscriber::connect(server.path()).expect("a live server");
    let frame = reader.next(PATIENCE).expect("a live ring").expect("frame 1");
    assert_eq!((frame.sequence(), frame.width(), frame.ids), (1, 4, vec![1; 16]));
    assert_eq!(publish(&mut ring, 4, 4, 2), 2, "abandoned slots take no sequence");
    let frame = reader.next(PATIENCE).expect("a live ring").expect("frame 2");
    assert_eq!((frame.sequence(), frame.ids), (2, vec![2; 16]));
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let mut ring = ring_of(&small());
    for (width, height) in [(0, 4), (4, 0), (9, 6), (8, 7), (u32::MAX, u32::MAX)] {
        assert!(matches!(ring.begin(width, height), Err(RingError::FrameSize { .. })), "{width}x{height}");
    }
    let error = ring.begin(9, 6).expect_err("too wide").to_string();
    assert_eq!(error, "a frame of 9x6 does not fit the mask ring of at most 8x6");
    assert!(ring.begin(8, 6).is_ok());
}

#[test]
fn too_many_segments_are_cut_and_flagged() {
    let scratch = Scratch::new();
    let mut ring = ring_of(&small());
    let server = MaskServer::start(ServerConfig::new(scratch.socket()), &ring).expect("a free path");
    let mut slot = ring.begin(2, 2).expect("a slot");
    slot.ids().copy_from_slice(&[1, 2, 3, 0]);
    slot.finish(&FrameReport { stale: true, no_signal: true, ..FrameReport::default() }, &[segment(1), segment(2), segment(3)]);
    let frame = Subscriber::connect(server.path()).expect("a server").next(PATIENCE).expect("a ring").expect("a frame");
    assert_eq!((frame.segments.len(), frame.truncated(), frame.stale(), frame.no_signal()), (2, true, true, true));
    assert_eq!((frame.ids.as_slice(), frame.checksum_ok()), (&[1, 2, 3, 0][..], Some(true)));
}

#[test]
fn the_camera_frame_travels_only_when_it_was_written() {
    let scratch = Scratch::new();
    let mut ring = ring_of(&RingConfig { include_frame: true, ..small() });
    let server = MaskServer::start(ServerConfig::new(scratch.socket()), &ring).expect("a free path");
    let mut reader = Subscriber::connect(server.path()).expect("a live server");
    publish(&mut ring, 2, 1, 1);
    assert_eq!(reader.next(PATIENCE).expect("a ring").expect("a frame").rgb(), None);
    let mut slot = ring.begin(2, 1).expect("a slot");
    slot.ids().fill(0);
    slot.frame().expect("this ring has frames").copy_from_slice(&[1, 2, 3, 4, 5, 6]);
    slot.finish(&FrameReport::default(), &[]);
    let frame = reader.next(PATIENCE).expect("a ring").expect("a frame");
    assert_eq!((frame.rgb(), frame.checksum_ok()), (Some(&[1, 2, 3, 4, 5, 6][..]), Some(true)));
}

#[test]
fn configurations_and_metadata_that_make_no_sense_are_named() {
    let cases = [
        (RingConfig { slots: 1, ..small() }, "`slots` is 1, outside of 2 to 64"),
        (RingConfig { max_width: 0, ..small() }, "`max_width` is 0"),
        (RingConfig { max_height: 20000, ..small() }, "`max_height` is 20000"),
        (RingConfig { max_segments: 0, ..small() }, "`max_segments` is 0"),
    ];
    for (config, expected) in cases {
        let error = RingWriter::create(&config, "{}", 0).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    for metadata in ["", "[]", r#"{"labels": 3}"#, r#"{"labels": [3]}"#] {
        assert!(matches!(RingWriter::create(&small(), metadata, 0), Err(RingError::Metadata { .. })), "{metadata}");
    }
}

#[test]
fn a_closed_ring_gives_its_last_frame_and_ends_cleanly() {
    let scratch = Scratch::new();
    let mut ring = ring_of(&small());
    let server = MaskServer::start(ServerConfig::new(scratch.socket()), &ring).expect("a free path");
    let mut reader = Subscriber::connect(server.path()).expect("a live server");
    assert!(!reader.wait(Some(Duration::ZERO)).expect("a live ring"));
    publish(&mut ring, 3, 3, 1);
    drop(ring);
    assert!(reader.next(PATIENCE).expect("the last frame").is_some());
    assert!(matches!(reader.next(PATIENCE), Err(ClientError::Ended { clean: true, .. })));
    let socket = server.path().to_owned();
    server.stop();
    assert!(!socket.exists());
    assert!(matches!(Subscriber::connect(&socket), Err(ClientError::Connect { .. })));
}

#[test]
fn a_replaced_ring_sends_its_readers_to_the_new_one() {
    let scratch = Scratch::new();
    let old = ring_of(&small());
    let server = MaskServer::start(ServerConfig::new(scratch.socket()), &old).expect("a free path");
    let mut reader = Subscriber::connect(server.path()).expect("a live server");
    let mut new = ring_of(&RingConfig { max_width: 80, ..small() });
    old.close();
    server.replace_ring(&new).expect("descriptors to spare");
    drop(old);
    assert!(matches!(reader.next(PATIENCE), Err(ClientError::Ended { clean: true, .. })));
    let mut reader = loop {
        let reader = Subscriber::connect_retry(server.path(), PATIENCE.expect("set")).expect("the same socket");
        if reader.generation() == 2 {
            break reader;
        }
    };
    publish(&mut new, 80, 1, 4);
    assert_eq!(reader.next(PATIENCE).expect("a ring").expect("woken by the new event").width(), 80);
}

#[test]
fn one_reader_too_many_hears_why() {
    let scratch = Scratch::new();
    let ring = ring_of(&small());
    let config = ServerConfig { clients_max: 2, ..ServerConfig::new(scratch.socket()) };
    let server = MaskServer::start(config, &ring).expect("a free path");
    let first = Subscriber::connect(server.path()).expect("room for two");
    let _second = Subscriber::connect(server.path()).expect("room for two");
    let error = Subscriber::connect(server.path()).expect_err("no room for three");
    assert!(error.to_string().ends_with("refused this client: it serves 2 readers already, its limit"), "{error}");
    drop(first);
    Subscriber::connect_retry(server.path(), PATIENCE.expect("set")).expect("room again");
}

#[test]
fn a_path_that_cannot_be_used_is_named() {
    let scratch = Scratch::new();
    let ring = ring_of(&small());
    let start = |config: ServerConfig| MaskServer::start(config, &ring).expect_err("must not start").to_string();
    let error = start(ServerConfig::new(scratch.0.join("none/masks.sock")));
    assert!(error.contains("none of the socket cannot be used: No such file"), "{error}");
    let error = start(ServerConfig::new(scratch.0.join("x".repeat(120))));
    assert!(error.contains("it may be too long"), "{error}");
    let error = start(ServerConfig { group: Some("no-such-group".into()), ..ServerConfig::new(scratch.socket()) });
    assert!(error.contains("'no-such-group'"), "{error}");
    assert_eq!(std::fs::read_dir(&scratch.0).expect("the directory").count(), 0, "nothing left behind");
}

#[test]
fn the_socket_has_the_mode_asked_for() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let ring = ring_of(&small());
    let config = ServerConfig { mode: 0o606, group: Some("0".into()), ..ServerConfig::new(scratch.socket()) };
    // Only root, or a member, may give a file to group 0.
    let config = if rustix::process::geteuid().is_root() { config } else { ServerConfig { group: None, ..config } };
    let server = MaskServer::start(config, &ring).expect("a free path");
    let mode = std::fs::metadata(server.path()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o606);
}

#[test]
fn nobody_can_write_shrink_or_unseal_the_memory() {
    let ring = ring_of(&small());
    let (memfd, len) = (ring.memory().fd(), ring.memory().len());
    assert_eq!(rustix::io::pwrite(memfd, b"x", 0), Err(Errno::PERM));
    assert_eq!(ftruncate(memfd, 0), Err(Errno::PERM));
    assert_eq!(ftruncate(memfd, 2 * len as u64), Err(Errno::PERM));
    assert_eq!(fcntl_add_seals(memfd, SealFlags::WRITE), Err(Errno::PERM));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(fallocate(memfd, punch, 0, len as u64), Err(Errno::PERM));
    let reopened =
        std::fs::OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(memfd)));
    assert_eq!(rustix::io::write(reopened.expect("root or owner may open it"), b"x"), Err(Errno::PERM));
    let map = |prot| {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing object.
        unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, memfd, 0) }
    };
    assert_eq!(map(ProtFlags::READ | ProtFlags::WRITE).err(), Some(Errno::PERM));
    let readable = map(ProtFlags::READ).expect("reading is allowed");
    // SAFETY: the mapping was made above, is used by nobody, and is given up right after.
    unsafe {
        assert_eq!(mprotect(readable, len, MprotectFlags::READ | MprotectFlags::WRITE), Err(Errno::ACCESS));
        munmap(readable, len).expect("the mapping made above");
    }
    let flags = rustix::io::fcntl_getfd(memfd).expect("an open descriptor");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "no child inherits it");
}

#[test]
fn an_idle_server_shows_that_it_lives() {
    let scratch = Scratch::new();
    let ring = ring_of(&small());
    let server = MaskServer::start(ServerConfig::new(scratch.socket()), &ring).expect("a free path");
    let deadline = std::time::Instant::now() + PATIENCE.expect("set");
    while server.turns().expect("a live thread") < 4 {
        assert!(std::time::Instant::now() < deadline, "nobody connects, nothing is published, and it goes round all the same");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_ring_takes_a_quarter_of_the_memory_at_most() {
    assert!(super::shm::check_room(2 << 30, 8 << 30).is_ok());
    let error = super::shm::check_room((2 << 30) + 1, 8 << 30).expect_err("more than a quarter").to_string();
    assert!(error.starts_with("the mask ring would take 2048 MiB, more than a quarter of this machine's 8192 MiB: "), "{error}");
}
