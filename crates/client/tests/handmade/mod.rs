//! A daemon made by hand: a ring as the layout describes it, byte by byte, behind a real socket. The writer of eomt-edge has no part in
//! this, so what uses it tests the clients alone.
#![allow(dead_code)] // each test uses a part of it

pub mod lies;

use std::fs::File;
use std::io::IoSlice;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use eomt_edge_client::layout::*;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    listen, sendmsg, socket_with,
};

pub const LABELS: &[u8] = b"sky\0car\0";
pub const METADATA: &[u8] = br#"{"task": "panoptic"}"#;

/// How the daemon wakes its reader: readers take both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Pipe,
    Eventfd,
}

/// The memory of a ring, written through its descriptor.
pub struct Ring {
    pub memory: File,
    /// What a reader gets.
    pub event: OwnedFd,
    /// What the daemon writes.
    pub wake: OwnedFd,
    pub info: RingInfo,
}

impl Ring {
    /// Two slots of at most 4x2 pixels and two segments.
    pub fn new(seals: SealFlags, kind: Kind) -> Ring {
        Ring::with_rows(2, seals, kind)
    }

    /// [`Ring::new`] with room for so many segments.
    pub fn with_rows(max_segments: u32, seals: SealFlags, kind: Kind) -> Ring {
        Ring::make(ABI_VERSION, max_segments, false, seals, kind)
    }

    /// [`Ring::new`] with room for the camera frame.
    pub fn with_frames(seals: SealFlags, kind: Kind) -> Ring {
        Ring::make(ABI_VERSION, 2, true, seals, kind)
    }

    /// [`Ring::new`] as a daemon of this ABI writes it.
    pub fn of_abi(abi_version: u32, seals: SealFlags, kind: Kind) -> Ring {
        Ring::make(abi_version, 2, false, seals, kind)
    }

    fn make(abi_version: u32, max_segments: u32, has_frame: bool, seals: SealFlags, kind: Kind) -> Ring {
        let geometry = Geometry {
            slot_count: 2,
            max_width: 4,
            max_height: 2,
            max_segments,
            has_frame,
            labels_bytes: LABELS.len(),
            metadata_bytes: METADATA.len(),
        };
        let mut info = geometry.place().expect("a small ring");
        if abi_version == 1 {
            (info.abi_version, info.row_bytes, info.table_offset) = (1, 0, SLOT_HEADER_BYTES_V1 as u64);
        }
        let memory = memfd_create(c"ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
        ftruncate(&memory, info.total_bytes).expect("its size");
        fcntl_add_seals(&memory, seals).expect("its seals");
        let (event, wake) = match kind {
            Kind::Pipe => pipe(),
            Kind::Eventfd => {
                let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
                (event.try_clone().expect("a descriptor"), event)
            }
        };
        let ring = Ring { memory: memory.into(), event, wake, info };
        ring.put_header(&info);
        ring.put(info.labels_offset, LABELS);
        ring.put(info.metadata_offset, METADATA);
        ring
    }

    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at).expect("inside the memory");
    }

    /// The start of the ring, in the order of the fields of `RingInfo`.
    pub fn put_header(&self, info: &RingInfo) {
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
        self.put(0, b"EOMTRING");
        self.put(8, &words.map(u32::to_le_bytes).concat());
        self.put(32, &offsets.map(u64::to_le_bytes).concat());
        self.put(offset_of!(RingInfo, row_bytes) as u64, &info.row_bytes.to_le_bytes());
    }

    pub fn slot(&self, sequence: u64) -> u64 {
        self.info.slots_offset + sequence % 2 * self.info.slot_stride
    }

    pub fn put_lock(&self, sequence: u64, lock: u64) {
        self.put(self.slot(sequence) + offset_of!(SlotHeader, lock) as u64, &lock.to_le_bytes());
    }

    pub fn put_latest(&self, sequence: u64) {
        self.put(offset_of!(RingHeader, latest) as u64, &sequence.to_le_bytes());
    }

    /// A word of the `SlotInfo` of the slot of `sequence`.
    pub fn put_slot_info(&self, sequence: u64, offset: usize, value: u32) {
        self.put(self.slot(sequence) + (offset_of!(SlotHeader, info) + offset) as u64, &value.to_le_bytes());
    }

    /// The one row of the slot of `sequence`.
    pub fn put_row(&self, sequence: u64, row: &SegmentRow) {
        let start = [&row.id.to_le_bytes()[..], &row.class.to_le_bytes(), &row.score.to_le_bytes()].concat();
        let [x, y, width, height] = row.bbox;
        let numbers = [x, y, width, height, row.area, row.track_id].map(u32::to_le_bytes).concat();
        self.put(self.slot(sequence) + self.info.table_offset, &[start, numbers].concat());
    }

    /// Publication `sequence`: 3x2 pixels, one car, ids that count from `sequence` on.
    pub fn publish(&self, sequence: u64) {
        let slot = self.slot(sequence);
        let field = |offset: usize| slot + (offset_of!(SlotHeader, info) + offset) as u64;
        self.put(slot, b"SLOT");
        self.put(slot + 4, &self.info.abi_version.to_le_bytes());
        let times = [sequence, 10 * sequence, 1000, 9000, 5];
        self.put(field(0), &times.map(u64::to_le_bytes).concat());
        let words = [3, 2, 0xC0FF_EE00, SLOT_STALE, 1, 0, 11, 12, 13, 14];
        self.put(field(offset_of!(SlotInfo, width)), &words.map(u32::to_le_bytes).concat());
        if self.info.abi_version > 1 {
            self.put(field(offset_of!(SlotInfo, stamp_ns)), &[1_700_000_000_000_000_000u64, 1, 2, 2, 6].map(u64::to_le_bytes).concat());
        }
        self.put_row(sequence, &ROW);
        self.put(slot + self.info.ids_offset, &ids(sequence).map(u16::to_le_bytes).concat());
        self.put_lock(sequence, 2 * sequence);
        self.put_latest(sequence);
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).expect("a wakeup");
    }
}

/// The row of every publication.
pub const ROW: SegmentRow = SegmentRow { id: 7, class: 1, score: 0.5, bbox: [1, 0, 2, 2], area: 4, track_id: 0 };

pub fn ids(sequence: u64) -> [u16; 6] {
    std::array::from_fn(|pixel| (sequence as u16) + pixel as u16)
}

/// `(read end, write end)`, blocking: what a reader's own end is like is the reader's business.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = std::io::pipe().expect("a pipe");
    (read.into(), write.into())
}

/// A path of its own, which nothing uses yet.
pub fn socket_path(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("eomt-client-{}-{number}-{name}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// Not for the children of other tests.
pub fn seqpacket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket")
}

pub fn listener(path: &Path, backlog: i32) -> OwnedFd {
    let listener = seqpacket();
    bind(&listener, &SocketAddrUnix::new(path).expect("a short path")).expect("a free path");
    listen(&listener, backlog).expect("a listener");
    listener
}

/// Waits two minutes for something to happen on `fd`: an end to a hang, not a measurement.
pub fn wait_readable(fd: &OwnedFd) {
    let patience = Timespec { tv_sec: 120, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(fd, PollFlags::IN | PollFlags::RDHUP)], Some(&patience)).expect("poll");
    assert!(ready > 0, "nothing happened on a descriptor for two minutes");
}

pub fn send(client: &OwnedFd, hello: &[u8], descriptors: &[OwnedFd]) {
    let rights: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !rights.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&rights)));
    }
    sendmsg(client, &[IoSlice::new(hello)], &mut control, SendFlags::NOSIGNAL).expect("a hello");
}

/// Listens on a path of its own and greets one client with `hello` and the ring's descriptors.
pub fn serve(name: &str, ring: &Ring, hello: &[u8]) -> (PathBuf, JoinHandle<OwnedFd>) {
    let path = socket_path(name);
    let listener = listener(&path, 1);
    let descriptors = [ring.memory.as_fd().try_clone_to_owned(), ring.event.try_clone()].map(|fd| fd.expect("a descriptor"));
    let (hello, socket_file) = (hello.to_vec(), path.clone());
    let greet = move || {
        let client = accept_with(&listener, SocketFlags::CLOEXEC).expect("a client");
        send(&client, &hello, &descriptors);
        let _ = std::fs::remove_file(socket_file);
        client
    };
    (path, std::thread::spawn(greet))
}

pub fn hello(abi_version: u32, status: u32, ring: &Ring, message: &str) -> Vec<u8> {
    let mut bytes = b"EOMTHELO".to_vec();
    bytes.extend([abi_version, status].map(u32::to_le_bytes).concat());
    bytes.extend([4, ring.info.total_bytes].map(u64::to_le_bytes).concat());
    bytes.extend([99u32, 0].map(u32::to_le_bytes).concat());
    bytes.extend(message.as_bytes());
    bytes.resize(128, 0);
    bytes
}
