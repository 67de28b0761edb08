//! Everything that a daemon, or what pretends to be one, may do to its clients, and what each client has to say to it.
//!
//! No lie harms the machine: they are messages, sizes and numbers.

use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use eomt_edge_client::layout::*;
use rustix::fs::{Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, open};
use rustix::net::{SocketAddrUnix, SocketFlags, accept_with, connect};

use super::{Kind, ROW, Ring, hello, listener, pipe, send, seqpacket, socket_path, wait_readable};

/// A lie, and words of the sentence by which the clients in Rust, C and Python call it.
pub struct Lie {
    pub name: &'static str,
    pub act: Act,
    pub says: [&'static str; 3],
    /// It shows only when the client's time is up.
    pub times_out: bool,
}

pub enum Act {
    /// Listens and never accepts; its queue is full.
    QueueFull,
    /// Accepts and says nothing.
    Silent,
    /// Accepts and hangs up.
    HangUp,
    /// Says hello, with something wrong about it.
    Say(fn(&mut Stage)),
    /// Says a sound hello, but lets the client wait for it.
    SayLate,
}

/// What a daemon is about to send: a sound ring with one frame and its hello, until a lie changes it.
pub struct Stage {
    pub ring: Ring,
    pub hello: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Stage {
    fn new() -> Stage {
        let ring = Ring::new(SealFlags::SHRINK | SealFlags::GROW, Kind::Pipe);
        ring.publish(1);
        let hello = hello(ABI_VERSION, HELLO_OK, &ring, "");
        let mut stage = Stage { ring, hello, descriptors: Vec::new() };
        stage.descriptors = vec![stage.memory(), stage.event()];
        stage
    }

    fn memory(&self) -> OwnedFd {
        self.ring.memory.try_clone().expect("a descriptor").into()
    }

    fn event(&self) -> OwnedFd {
        self.ring.event.try_clone().expect("a descriptor")
    }

    fn announce(&mut self, ring_bytes: u64) {
        self.hello[24..32].copy_from_slice(&ring_bytes.to_le_bytes());
    }

    /// Another memory of `bytes` in the place of the ring's, announced as it is.
    fn replace_memory(&mut self, bytes: u64) {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create(c"ring", flags).expect("a memfd");
        ftruncate(&memory, bytes).expect("its size, of which nothing is written");
        fcntl_add_seals(&memory, SealFlags::SHRINK).expect("its seals");
        self.descriptors[0] = memory;
        self.announce(bytes);
    }

    fn harm_header(&self, harm: fn(&mut RingInfo)) {
        let mut info = self.ring.info;
        harm(&mut info);
        self.ring.put_header(&info);
    }

    /// A camera frame in the slot of frame 1 of another ring, which has room for it. What its bytes are does not matter.
    fn put_picture(&mut self, format: &[u8; 4], stride: u32, bytes: u32) {
        self.ring = Ring::with_frames(SealFlags::SHRINK, Kind::Pipe);
        self.ring.publish(1);
        let values = [u32::from_le_bytes(*format), stride, bytes];
        let offsets = [offset_of!(SlotInfo, frame_format), offset_of!(SlotInfo, frame_stride), offset_of!(SlotInfo, frame_bytes)];
        offsets.into_iter().zip(values).for_each(|(offset, value)| self.ring.put_slot_info(1, offset, value));
        self.ring.put_slot_info(1, offset_of!(SlotInfo, flags), SLOT_HAS_FRAME);
        self.hello = hello(ABI_VERSION, HELLO_OK, &self.ring, "");
        self.descriptors = vec![self.memory(), self.event()];
    }

    fn harm_row(&self, harm: fn(&mut SegmentRow)) {
        let mut row = ROW;
        harm(&mut row);
        self.ring.put_row(1, &row);
    }
}

/// Something that is open and is neither a memfd nor an event.
fn opened(path: &str, flags: OFlags) -> OwnedFd {
    open(path, flags | OFlags::CLOEXEC, Mode::empty()).expect(path)
}

const NOT_OURS: [&str; 3] = ["not a mask socket"; 3];
const NO_MEMFD: [&str; 3] = ["not a sealable memfd"; 3];
const NO_EVENT: [&str; 3] = ["neither a timer, an eventfd nor a pipe"; 3];
const BAD_HEADER: [&str; 3] = ["header"; 3];
const BAD_SIZE: [&str; 3] = [" claims ", "a slot of the ring makes no sense", " claims "];
const BAD_SLOT: [&str; 3] = [" has magic ", "a slot of the ring makes no sense", "is not one"];
const BAD_ROW: [&str; 3] = ["which no frame can have", "outside of its frame", "which no frame can have"];
/// The first frame comes, and no second.
const NO_FRAME: [&str; 3] = ["no frame"; 3];

fn say(name: &'static str, says: [&'static str; 3], act: fn(&mut Stage)) -> Lie {
    Lie { name, act: Act::Say(act), says, times_out: says == NO_FRAME }
}

pub fn lies() -> Vec<Lie> {
    let act = |name, act, says| Lie { name, times_out: !matches!(act, Act::HangUp), act, says };
    let mut lies = vec![
        act("queue-full", Act::QueueFull, ["does not accept: its queue is full"; 3]),
        act("silent", Act::Silent, ["no hello came in time"; 3]),
        act("late", Act::SayLate, NO_FRAME),
        act("hangs-up", Act::HangUp, ["has ended", "hung up before its hello", "hung up before its hello"]),
    ];
    lies.extend(hellos());
    lies.extend(descriptors());
    lies.extend(events());
    lies.extend(rings());
    lies.extend(slots());
    lies
}

fn hellos() -> Vec<Lie> {
    vec![
        say("short", NOT_OURS, |stage| stage.hello.truncate(9)),
        say("cut", NOT_OURS, |stage| stage.hello.truncate(127)),
        say("longer", NOT_OURS, |stage| stage.hello.push(0)),
        say("other", NOT_OURS, |stage| stage.hello = b"220 mail.example ESMTP".to_vec()),
        say("abi", ["ABI"; 3], |stage| stage.hello[8] = ABI_VERSION as u8 + 1),
        say("abi-0", ["ABI"; 3], |stage| stage.hello[8] = 0),
        say("refuses", ["refused this client"; 3], |stage| {
            stage.hello[12] = 1;
            stage.hello[40..].fill(b'\x1b');
        }),
        say("announces-64-bits", ["more than the 4"; 3], |stage| stage.announce(u64::MAX)),
        say("announces-1-tib", ["more than the 4"; 3], |stage| stage.replace_memory(1 << 40)),
        say("announces-more", ["announced"; 3], |stage| stage.announce(1 << 20)),
        say("announces-nothing", ["announced"; 3], |stage| stage.announce(0)),
    ]
}

fn descriptors() -> Vec<Lie> {
    vec![
        say("no-descriptors", ["descriptors"; 3], |stage| stage.descriptors.clear()),
        say("one-descriptor", ["descriptors"; 3], |stage| stage.descriptors.truncate(1)),
        say("three-descriptors", ["descriptors"; 3], |stage| stage.descriptors.push(stage.event())),
        say("253-descriptors", ["descriptors"; 3], |stage| stage.descriptors.resize_with(253, || pipe().0)),
        say("swapped", NO_MEMFD, |stage| stage.descriptors.swap(0, 1)),
        say("memory-is-a-directory", NO_MEMFD, |stage| stage.descriptors[0] = opened("/tmp", OFlags::RDONLY)),
        say("memory-is-a-file", NO_MEMFD, |stage| stage.descriptors[0] = opened("/proc/self/status", OFlags::RDONLY)),
        say("memory-is-a-path", NO_MEMFD, |stage| stage.descriptors[0] = opened("/dev/zero", OFlags::PATH)),
        say("memory-is-a-device", NO_MEMFD, |stage| stage.descriptors[0] = opened("/dev/zero", OFlags::RDONLY)),
        say("not-sealed", ["not sealed against shrinking"; 3], |stage| {
            let ring = Ring::new(SealFlags::GROW, Kind::Pipe);
            stage.descriptors[0] = ring.memory.into();
        }),
    ]
}

fn events() -> Vec<Lie> {
    vec![
        say("event-is-a-file", NO_EVENT, |stage| stage.descriptors[1] = stage.memory()),
        say("event-is-a-directory", NO_EVENT, |stage| stage.descriptors[1] = opened("/tmp", OFlags::RDONLY)),
        say("event-is-a-device", NO_EVENT, |stage| stage.descriptors[1] = opened("/dev/zero", OFlags::RDONLY)),
        say("event-is-a-socket", NO_EVENT, |stage| {
            stage.descriptors[1] = seqpacket();
        }),
        say("event-is-a-write-end", ["cannot be read"; 3], |stage| {
            stage.descriptors[1] = stage.ring.wake.try_clone().expect("a descriptor")
        }),
        say("event-is-an-epoll-set", NO_FRAME, |stage| {
            stage.descriptors[1] = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).expect("an epoll set");
        }),
        say("eventfd-blocks", NO_FRAME, |stage| {
            let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("an eventfd");
            stage.descriptors[1] = event;
        }),
        say("pipe-blocks", NO_FRAME, |_| {}),
        say("pipe-is-always-readable", NO_FRAME, |stage| {
            let flags = rustix::fs::fcntl_getfl(&stage.ring.wake).expect("a pipe");
            rustix::fs::fcntl_setfl(&stage.ring.wake, flags | OFlags::NONBLOCK).expect("our own");
            while rustix::io::write(&stage.ring.wake, &[1; 4096]).is_ok() {}
        }),
        say("pipe-hangs-up", NO_FRAME, |stage| stage.ring.wake = pipe().1),
    ]
}

fn rings() -> Vec<Lie> {
    vec![
        say("empty-header", ["ring magic 0x0", "header makes no sense", "magic 0x0"], |stage| stage.replace_memory(1 << 20)),
        say("slots-outside", BAD_HEADER, |stage| stage.harm_header(|info| info.slot_stride = 1 << 39)),
        say("labels-outside", BAD_HEADER, |stage| stage.harm_header(|info| info.labels_bytes = 8000)),
        say("huge-labels", ["beyond the limit", "header makes no sense", "of labels"], |stage| {
            stage.replace_memory(64 << 20);
            let info = RingInfo { labels_bytes: 17 << 20, slots_offset: 32 << 20, total_bytes: 64 << 20, ..stage.ring.info };
            let other = std::fs::File::from(stage.descriptors[0].try_clone().expect("a descriptor"));
            Ring { memory: other, event: stage.event(), wake: pipe().1, info }.put_header(&info);
        }),
        say("rows-too-short", BAD_HEADER, |stage| stage.harm_header(|info| info.row_bytes = 24)),
        say("rows-not-aligned", BAD_HEADER, |stage| stage.harm_header(|info| info.row_bytes = 36)),
        say("rows-too-long", BAD_HEADER, |stage| stage.harm_header(|info| info.row_bytes = u32::MAX - 7)),
        say("rows-overlap-ids", BAD_HEADER, |stage| stage.harm_header(|info| info.row_bytes = 40)),
        say("other-abi-inside", ["ABI 3", "header makes no sense", "ABI 3"], |stage| stage.harm_header(|info| info.abi_version = 3)),
        say("other-total", BAD_HEADER, |stage| stage.harm_header(|info| info.total_bytes -= 64)),
        // the clients in Rust and C hand the text on as it is
        say("metadata-is-no-json", ["no frame", "no frame", "its metadata is no JSON"], |stage| {
            stage.ring.put(stage.ring.info.metadata_offset, &[b'['; 20]);
        })
        .also_times_out(),
        say("labels-are-no-text", NO_FRAME, |stage| stage.ring.put(stage.ring.info.labels_offset, b"\xff\x1b[\0\x1b[H\0")),
    ]
}

fn slots() -> Vec<Lie> {
    vec![
        say("box-outside", BAD_ROW, |stage| stage.harm_row(|row| row.bbox = [2, 0, 2, 2])),
        say("box-far-outside", BAD_ROW, |stage| stage.harm_row(|row| row.bbox = [u32::MAX; 4])),
        say("box-below", BAD_ROW, |stage| stage.harm_row(|row| row.bbox = [0, 3, 0, 0])),
        say("area-too-large", BAD_ROW, |stage| stage.harm_row(|row| row.area = 7)),
        say("score-is-nan", BAD_ROW, |stage| stage.harm_row(|row| row.score = f32::NAN)),
        say("score-is-infinite", BAD_ROW, |stage| stage.harm_row(|row| row.score = f32::NEG_INFINITY)),
        say("id-is-nothing", BAD_ROW, |stage| stage.harm_row(|row| row.id = 0)),
        say("class-is-unknown", NO_FRAME, |stage| stage.harm_row(|row| row.class = u16::MAX)),
        say("frame-too-wide", BAD_SIZE, |stage| stage.ring.put_slot_info(1, offset_of!(SlotInfo, width), 5)),
        say("frame-empty", BAD_SIZE, |stage| stage.ring.put_slot_info(1, offset_of!(SlotInfo, height), 0)),
        say("too-many-rows", BAD_SIZE, |stage| stage.ring.put_slot_info(1, offset_of!(SlotInfo, segment_count), 3)),
        say("picture-without-room", BAD_SIZE, |stage| stage.ring.put_slot_info(1, offset_of!(SlotInfo, flags), SLOT_HAS_FRAME)),
        say("picture-not-announced", BAD_SIZE, |stage| stage.ring.put_slot_info(1, offset_of!(SlotInfo, frame_bytes), 18)),
        say("picture-too-large", BAD_SIZE, |stage| stage.put_picture(b"MJPG", 0, 1 << 16)),
        say("picture-huge", BAD_SIZE, |stage| stage.put_picture(b"H264", 0, u32::MAX)),
        say("picture-too-short", BAD_SIZE, |stage| stage.put_picture(b"RGB3", 9, 17)),
        say("picture-of-other-rows", BAD_SIZE, |stage| stage.put_picture(b"YUYV", 6, 16)),
        say("picture-of-unknown-format", NO_FRAME, |stage| stage.put_picture(b"\x1b[2J", 77, 5)),
        say("picture-as-camera-gave-it", NO_FRAME, |stage| stage.put_picture(b"NV12", 3, 10)),
        say("slot-of-another-abi", BAD_SLOT, |stage| {
            stage.ring.put(stage.ring.slot(1) + 4, &1u32.to_le_bytes());
        }),
        say("other-sequence", BAD_SLOT, |stage| {
            stage.ring.put_lock(3, 6);
            stage.ring.put_latest(3);
        }),
        say("last-sequence-of-all", BAD_SLOT, |stage| {
            stage.ring.put_lock(u64::MAX, u64::MAX - 1);
            stage.ring.put_latest(u64::MAX);
        }),
        say("never-stable", NO_FRAME, |stage| stage.ring.put_lock(1, 1)),
    ]
}

impl Lie {
    fn also_times_out(mut self) -> Lie {
        self.times_out = true;
        self
    }
}

/// A liar at work: one socket, for one client. Dropped, it waits for the end of its thread.
pub struct Liar {
    pub path: PathBuf,
    thread: Option<JoinHandle<()>>,
    _queue: Vec<OwnedFd>,
}

impl Liar {
    pub fn start(lie: &Lie) -> Liar {
        let path = socket_path(lie.name);
        let listener = listener(&path, if matches!(lie.act, Act::QueueFull) { 0 } else { 4 });
        if matches!(lie.act, Act::QueueFull) {
            let filler = seqpacket();
            connect(&filler, &SocketAddrUnix::new(&path).expect("a short path")).expect("the one place in the queue");
            return Liar { path, thread: None, _queue: vec![listener, filler] };
        }
        let stage = match lie.act {
            Act::Say(harm) => {
                let mut stage = Stage::new();
                harm(&mut stage);
                Some(stage)
            }
            Act::SayLate => Some(Stage::new()),
            _ => None,
        };
        let late = matches!(lie.act, Act::SayLate);
        let hangs_up = matches!(lie.act, Act::HangUp);
        let thread = std::thread::spawn(move || {
            wait_readable(&listener);
            let client = accept_with(&listener, SocketFlags::CLOEXEC).expect("a client");
            if late {
                std::thread::sleep(Duration::from_millis(100));
            }
            if let Some(stage) = &stage {
                send(&client, &stage.hello, &stage.descriptors);
            }
            if !hangs_up {
                wait_readable(&client);
            }
        });
        Liar { path, thread: Some(thread), _queue: Vec::new() }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        let result = self.thread.take().map(JoinHandle::join);
        let _ = std::fs::remove_file(&self.path);
        if let Some(Err(panic)) = result
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}
