//! A daemon made by hand: a ring as the layout describes it, byte by byte, behind a real socket. The writer of eomt-edge has no part
//! in this, so it tests the crate alone.

use std::fs::File;
use std::io::IoSlice;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use eomt_edge_client::layout::*;
use eomt_edge_client::{ClientError, MaskFrame, Subscriber, crc32};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType, accept, bind, listen, sendmsg, socket,
};

const LABELS: &[u8] = b"sky\0car\0";
const METADATA: &[u8] = br#"{"task": "panoptic"}"#;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// The memory of a ring, written through its descriptor.
struct Ring {
    memory: File,
    event: OwnedFd,
    info: RingInfo,
}

impl Ring {
    /// Two slots of at most 4x2 pixels and two segments.
    fn new(seals: SealFlags) -> Ring {
        let geometry = Geometry {
            slot_count: 2,
            max_width: 4,
            max_height: 2,
            max_segments: 2,
            has_frame: false,
            labels_bytes: LABELS.len(),
            metadata_bytes: METADATA.len(),
        };
        let info = geometry.place().expect("a small ring");
        let memory = memfd_create(c"ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
        ftruncate(&memory, info.total_bytes).expect("its size");
        fcntl_add_seals(&memory, seals).expect("its seals");
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
        let ring = Ring { memory: memory.into(), event, info };
        // in the order of the fields of RingInfo
        let words = [info.abi_version, info.header_bytes, info.slot_count, info.max_segments, info.max_width, info.max_height];
        let offsets = [
            info.slots_offset,
            info.slot_stride,
            info.total_bytes,
            info.table_offset,
            info.ids_offset,
            info.frame_offset,
            info.labels_offset,
            info.labels_bytes,
            info.metadata_offset,
            info.metadata_bytes,
        ];
        ring.put(0, b"EOMTRING");
        ring.put(8, &words.map(u32::to_le_bytes).concat());
        ring.put(32, &offsets.map(u64::to_le_bytes).concat());
        ring.put(info.labels_offset, LABELS);
        ring.put(info.metadata_offset, METADATA);
        ring
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at).expect("inside the memory");
    }

    fn slot(&self, sequence: u64) -> u64 {
        self.info.slots_offset + sequence % 2 * self.info.slot_stride
    }

    /// Publication `sequence`: 3x2 pixels, one car, ids that count from `sequence` on.
    fn publish(&self, sequence: u64) {
        let slot = self.slot(sequence);
        let field = |offset: usize| slot + (offset_of!(SlotHeader, info) + offset) as u64;
        self.put(slot, b"SLOT");
        self.put(slot + 4, &1u32.to_le_bytes());
        let times = [sequence, 10 * sequence, 1000, 9000, 5];
        self.put(field(0), &times.map(u64::to_le_bytes).concat());
        let words = [3, 2, 0xC0FF_EE00, SLOT_STALE, 1, 0, 11, 12, 13, 14];
        self.put(field(offset_of!(SlotInfo, width)), &words.map(u32::to_le_bytes).concat());
        let row = [&7u16.to_le_bytes()[..], &1u16.to_le_bytes(), &0.5f32.to_le_bytes()].concat();
        let numbers = [1u32, 0, 2, 2, 4, 0].map(u32::to_le_bytes).concat();
        self.put(slot + self.info.table_offset, &[row, numbers].concat());
        self.put(slot + self.info.ids_offset, &ids(sequence).map(u16::to_le_bytes).concat());
        self.put(slot + offset_of!(SlotHeader, lock) as u64, &(2 * sequence).to_le_bytes());
        self.put(offset_of!(RingHeader, latest) as u64, &sequence.to_le_bytes());
        rustix::io::write(&self.event, &1u64.to_ne_bytes()).expect("a wakeup");
    }
}

fn ids(sequence: u64) -> [u16; 6] {
    std::array::from_fn(|pixel| (sequence as u16) + pixel as u16)
}

/// Listens on a path of its own and greets one client with `hello` and the ring's descriptors.
fn serve(name: &str, ring: &Ring, hello: &[u8]) -> (PathBuf, JoinHandle<OwnedFd>) {
    let path = std::env::temp_dir().join(format!("eomt-client-{name}-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    bind(&listener, &SocketAddrUnix::new(&path).expect("a short path")).expect("a free path");
    listen(&listener, 1).expect("a listener");
    let descriptors = [ring.memory.as_fd().try_clone_to_owned(), ring.event.try_clone()].map(|fd| fd.expect("a descriptor"));
    let (hello, socket_file) = (hello.to_vec(), path.clone());
    let greet = move || {
        let client = accept(&listener).expect("a client");
        let [memory, event] = &descriptors;
        let rights = [memory.as_fd(), event.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&rights)));
        sendmsg(&client, &[IoSlice::new(&hello)], &mut control, SendFlags::empty()).expect("a hello");
        let _ = std::fs::remove_file(socket_file);
        client
    };
    (path, std::thread::spawn(greet))
}

fn hello(abi_version: u32, status: u32, ring: &Ring, message: &str) -> Vec<u8> {
    let mut bytes = b"EOMTHELO".to_vec();
    bytes.extend([abi_version, status].map(u32::to_le_bytes).concat());
    bytes.extend([4, ring.info.total_bytes].map(u64::to_le_bytes).concat());
    bytes.extend([99u32, 0].map(u32::to_le_bytes).concat());
    bytes.extend(message.as_bytes());
    bytes.resize(128, 0);
    bytes
}

fn refused(name: &str, seals: SealFlags, hello: impl Fn(&Ring) -> Vec<u8>) -> (ClientError, PathBuf) {
    let ring = Ring::new(seals);
    let (path, daemon) = serve(name, &ring, &hello(&ring));
    let error = Subscriber::connect(&path).expect_err("a bad daemon");
    daemon.join().expect("it greeted");
    (error, path)
}

#[test]
fn frames_arrive_as_they_were_written_until_the_ring_is_closed() {
    let ring = Ring::new(SealFlags::SHRINK | SealFlags::GROW);
    ring.publish(1);
    let (path, daemon) = serve("frames", &ring, &hello(1, HELLO_OK, &ring, ""));
    let mut masks = Subscriber::connect(&path).expect("a daemon");
    let _connection = daemon.join().expect("it greeted");
    assert_eq!((masks.generation(), masks.labels(), masks.metadata().as_bytes()), (4, &["sky", "car"].map(String::from)[..], METADATA));

    let frame = masks.next(PATIENCE).expect("a live ring").expect("a frame");
    let info = &frame.info;
    assert_eq!((frame.sequence(), info.frame_sequence, info.captured_ns, info.published_ns, info.dropped), (1, 10, 1000, 9000, 5));
    assert_eq!((frame.width(), frame.height(), frame.source_id(), info.stage_us), (3, 2, 0xC0FF_EE00, [11, 12, 13, 14]));
    assert_eq!((frame.stale(), frame.no_signal(), frame.truncated(), frame.rgb(), frame.checksum_ok()), (true, false, false, None, None));
    assert_eq!(frame.ids, ids(1));
    let row = frame.segments[0];
    assert_eq!((row.id, masks.label(row.class), row.score, row.bbox, row.area), (7, Some("car"), 0.5, [1, 0, 2, 2], 4));
    assert_eq!(frame.ids_crc32(), crc32(0, &ids(1).map(u16::to_le_bytes).concat()));

    // a slot that is being written is not read, and the copy of the caller is reused
    let mut frame = MaskFrame::default();
    ring.publish(2);
    ring.put(ring.slot(2) + offset_of!(SlotHeader, lock) as u64, &3u64.to_le_bytes());
    assert!(!masks.latest(&mut frame).expect("a live ring"));
    assert!(masks.retries() > 0);
    ring.publish(2);
    ring.publish(3);
    assert!(masks.next_into(&mut frame, PATIENCE).expect("a live ring"));
    assert_eq!((frame.sequence(), frame.ids.as_slice(), masks.skipped()), (3, &ids(3)[..], 1));

    ring.put(offset_of!(RingHeader, closed) as u64, &1u32.to_le_bytes());
    assert!(matches!(masks.next(PATIENCE), Err(ClientError::Ended { clean: true, .. })));
}

#[test]
fn a_daemon_that_dies_is_an_end_that_is_not_clean() {
    let ring = Ring::new(SealFlags::SHRINK);
    let (path, daemon) = serve("dies", &ring, &hello(1, HELLO_OK, &ring, ""));
    let mut masks = Subscriber::connect(&path).expect("a daemon");
    drop(daemon.join().expect("it greeted"));
    assert!(matches!(masks.next(PATIENCE), Err(ClientError::Ended { clean: false, .. })));
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let sealed = SealFlags::SHRINK;
    let says = |error: &ClientError, path: &Path, words: &str| {
        let sentence = error.to_string();
        assert!(sentence.contains(words) && sentence.contains(path.to_str().expect("UTF-8")), "{sentence}");
    };
    let (error, path) = refused("abi", sealed, |ring| hello(2, HELLO_OK, ring, ""));
    assert!(matches!(error, ClientError::Abi { theirs: 2, ours: ABI_VERSION, .. }));
    says(&error, &path, "ABI 2");
    let (error, path) = refused("full", sealed, |ring| hello(1, HELLO_REFUSED, ring, "it is full"));
    says(&error, &path, "it is full");
    let (error, path) = refused("other", sealed, |_| b"220 mail.example ESMTP".to_vec());
    says(&error, &path, "not a mask socket");
    let (error, path) = refused("unsealed", SealFlags::GROW, |ring| hello(1, HELLO_OK, ring, ""));
    says(&error, &path, "not sealed against shrinking");
    let (error, path) = refused("longer", sealed, |ring| {
        let mut bytes = hello(1, HELLO_OK, ring, "");
        bytes[24..32].copy_from_slice(&(ring.info.total_bytes + 4096).to_le_bytes());
        bytes
    });
    says(&error, &path, "mask ring");
    let missing = std::env::temp_dir().join("eomt-client-nobody.sock");
    says(&Subscriber::connect(&missing).expect_err("nobody"), &missing, "cannot connect");
}
