//! The Rust client against a hostile server: hello, descriptors and shared memory are the input.
//!
//! ```text
//! u8 flags | hello | descriptors | size, seals | header of the ring | operations until the end of the input
//! ```
//! A thread of the process accepts and sends what the input says; then this thread changes the memory and reads, in turn, so that an
//! input always does the same. The memory is a real memfd, and what arrives is what [`Subscriber`] gets from any server.

use std::io::IoSlice;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use eomt_edge_client::layout::{
    ABI_VERSION, Geometry, HELLO_MAGIC, Hello, MAX_SEGMENTS, RingHeader, RingInfo, SLOT_HAS_FRAME, SLOT_MAGIC, SegmentRow, SlotHeader,
    SlotInfo,
};
use eomt_edge_client::{FrameFormat, MaskFrame, Subscriber};
use eomt_edge_core::data::Segment;
use eomt_edge_core::overlay;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    listen, send, sendmsg, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};

use super::assert_sentence;
use super::input::Input;
use super::scratch::Scratch;

/// Operations of one input.
const STEPS_MAX: usize = 64;

pub(crate) fn run(input: &[u8]) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let mut input = Input::new(input);
    let mut ring = Ring::new(&mut input);
    let server = SERVER.get_or_init(Server::start);
    let scratch = Scratch::new();
    let path = scratch.join("masks.sock");
    let answer = ring.answer(&mut input);
    server.answers.send((listen_at(&path), answer)).expect("the thread lives as long as the process");
    let subscriber = Subscriber::connect(&path);
    let socket = server.sockets.lock().expect("no panic holds it").recv().expect("the thread lives as long as the process");
    match subscriber {
        Ok(subscriber) => read(subscriber, &mut ring, socket, &mut input),
        Err(error) => assert_sentence(&error.to_string()),
    }
}

fn listen_at(path: &Path) -> OwnedFd {
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket");
    bind(&listener, &SocketAddrUnix::new(path).expect("a short path")).expect("a new path");
    listen(&listener, 4).expect("a bound socket");
    listener
}

/// What one connection gets.
struct Answer {
    hello: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// The thread that accepts.
struct Server {
    answers: SyncSender<(OwnedFd, Answer)>,
    sockets: Mutex<Receiver<OwnedFd>>,
}

impl Server {
    fn start() -> Server {
        let (answers, to_send) = sync_channel::<(OwnedFd, Answer)>(1);
        let (accepted, sockets) = sync_channel(1);
        std::thread::spawn(move || {
            for (listener, answer) in to_send {
                let socket = accept_with(&listener, SocketFlags::CLOEXEC).expect("a client");
                answer.send(&socket);
                if accepted.send(socket).is_err() {
                    return;
                }
            }
        });
        Server { answers, sockets: Mutex::new(sockets) }
    }
}

impl Answer {
    /// Without a message the socket is shut, so that the client need not wait.
    fn send(&self, socket: &OwnedFd) {
        if self.hello.is_empty() {
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
            return;
        }
        let descriptors: Vec<BorrowedFd> = self.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "the space is made for four descriptors");
        }
        let _ = sendmsg(socket, &[IoSlice::new(&self.hello)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

/// The shared memory, from its writer's side.
struct Ring {
    memory: OwnedFd,
    info: RingInfo,
    bytes: u64,
}

impl Ring {
    /// A sound ring of a few kilobytes, with single fields of its header as the input says.
    fn new(input: &mut Input) -> Ring {
        let shape = input.u16();
        let geometry = Geometry {
            slot_count: 2 + u32::from(shape & 3),
            max_width: 1 + u32::from(shape >> 2 & 63),
            max_height: 1 + u32::from(shape >> 8 & 31),
            max_segments: 1 + u32::from(shape >> 13 & 3),
            has_frame: shape >> 15 == 1,
            labels_bytes: 10,
            metadata_bytes: 15,
        };
        let info = geometry.place().expect("a small ring");
        let memory = memfd_create("ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
        let ring = Ring { memory, bytes: info.total_bytes, info };
        ring.resize(ring.bytes);
        ring.put(0, &header(&ring.info));
        ring.put(info.labels_offset, b"road\0cars\0");
        ring.put(info.metadata_offset, br#"{"task": "any"}"#);
        for _ in 0..input.u8() & 7 {
            // one field of the header, 8 bytes each
            let field = u64::from(input.u8() & 31);
            ring.put(8 * field, &input.u64().to_le_bytes());
        }
        ring
    }

    fn resize(&self, bytes: u64) {
        let _ = ftruncate(&self.memory, bytes);
    }

    /// Past the end the file grows: no more than its seals and the size of the ring allow.
    fn put(&self, at: u64, bytes: &[u8]) {
        if at.saturating_add(bytes.len() as u64) <= self.bytes {
            let _ = rustix::io::pwrite(&self.memory, bytes, at);
        }
    }

    fn answer(&mut self, input: &mut Input) -> Answer {
        let flags = input.u8();
        if flags & 1 == 1 {
            // any size, or more than the largest ring has, which costs nothing in a sparse file
            let bytes = u64::from(input.u32());
            self.bytes = if input.u8() % 4 == 3 { 1 << 40 | bytes } else { bytes % (64 << 20) };
            self.resize(self.bytes);
        }
        let seals =
            if flags & 2 == 2 { SealFlags::from_bits_truncate(u32::from(input.u8()) & 0xF) } else { SealFlags::SHRINK | SealFlags::GROW };
        let _ = fcntl_add_seals(&self.memory, seals);
        let mut hello = hello(self.bytes);
        match flags >> 2 & 3 {
            0 | 1 => {}
            2 => {
                let count = usize::from(input.u8());
                hello = input.bytes(count).to_vec();
            }
            _ => {
                let at = usize::from(input.u8()) % hello.len();
                let bytes = input.bytes(8);
                let end = hello.len().min(at + bytes.len());
                hello[at..end].copy_from_slice(&bytes[..end - at]);
            }
        }
        let event = || match flags >> 6 {
            0 => pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe").0,
            1 => eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd"),
            2 => eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"),
            _ => self.memory.try_clone().expect("a descriptor"),
        };
        let memory = self.memory.try_clone().expect("a descriptor");
        let descriptors = match flags >> 4 & 3 {
            0 | 1 => vec![memory, event()],
            2 => vec![event(), memory],
            _ => [memory].into_iter().chain((0..input.u8() % 4).map(|_| event())).collect(),
        };
        Answer { hello, descriptors }
    }

    /// A publication as a writer makes it, but for what the input wants of its numbers.
    fn publish(&self, sequence: u64, input: &mut Input) {
        let kind = input.u8();
        let slot = self.info.slots_offset + sequence % u64::from(self.info.slot_count) * self.info.slot_stride;
        let side = |most: u32, input: &mut Input| if kind & 1 == 1 { input.u32() } else { 1 + u32::from(input.u8()) % most };
        let mut info = [0; size_of::<SlotInfo>()];
        let (width, height) = (side(self.info.max_width, input), side(self.info.max_height, input));
        let rows = if kind & 2 == 2 { input.u32() } else { self.info.max_segments };
        let flags = if kind & 4 == 4 {
            input.u32()
        } else if self.info.frame_offset > 0 {
            SLOT_HAS_FRAME
        } else {
            0
        };
        patch(&mut info, offset_of!(SlotInfo, sequence), &sequence.to_le_bytes());
        patch(&mut info, offset_of!(SlotInfo, width), &width.to_le_bytes());
        patch(&mut info, offset_of!(SlotInfo, height), &height.to_le_bytes());
        patch(&mut info, offset_of!(SlotInfo, segment_count), &rows.to_le_bytes());
        patch(&mut info, offset_of!(SlotInfo, flags), &flags.to_le_bytes());
        if flags & SLOT_HAS_FRAME != 0 {
            let formats: Vec<FrameFormat> = FrameFormat::all().collect();
            let format = if kind & 16 == 16 { formats[usize::from(input.u8()) % formats.len()] } else { FrameFormat::Rgb24 };
            let bytes = format.frame_bytes(width, height).map_or_else(|| u32::from(input.u16()), |bytes| bytes as u32);
            let numbers = [format.fourcc(), format.stride(width).unwrap_or_default() as u32, bytes];
            let numbers = if kind & 32 == 32 { numbers.map(|number| number ^ input.u32()) } else { numbers };
            patch(&mut info, offset_of!(SlotInfo, frame_format), &numbers.map(u32::to_le_bytes).concat());
        }
        self.put(slot + offset_of!(SlotHeader, magic) as u64, &SLOT_MAGIC.to_le_bytes());
        self.put(slot + offset_of!(SlotHeader, abi_version) as u64, &ABI_VERSION.to_le_bytes());
        self.put(slot + offset_of!(SlotHeader, info) as u64, &info);
        if kind & 8 == 8 {
            self.put(slot + self.info.table_offset, input.bytes(size_of::<SegmentRow>()));
        }
        self.put(slot + offset_of!(SlotHeader, lock) as u64, &sequence.wrapping_mul(2).to_le_bytes());
        self.put(offset_of!(RingHeader, latest) as u64, &sequence.to_le_bytes());
    }
}

fn patch(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn hello(ring_bytes: u64) -> Vec<u8> {
    let mut hello = vec![0; size_of::<Hello>()];
    patch(&mut hello, offset_of!(Hello, magic), &HELLO_MAGIC.to_le_bytes());
    patch(&mut hello, offset_of!(Hello, abi_version), &ABI_VERSION.to_le_bytes());
    patch(&mut hello, offset_of!(Hello, ring_bytes), &ring_bytes.to_le_bytes());
    hello
}

fn header(info: &RingInfo) -> [u8; size_of::<RingInfo>()] {
    let mut bytes = [0; size_of::<RingInfo>()];
    macro_rules! fields {
        ($($field:ident),*) => { $(patch(&mut bytes, offset_of!(RingInfo, $field), &info.$field.to_le_bytes());)* };
    }
    fields!(magic, abi_version, header_bytes, slot_count, max_segments, max_width, max_height, slots_offset, slot_stride, total_bytes);
    fields!(table_offset, ids_offset, frame_offset, labels_offset, labels_bytes, metadata_offset, metadata_bytes, label_count, flags);
    bytes
}

/// What a reader does, while the server does what it likes.
fn read(mut masks: Subscriber, ring: &mut Ring, socket: OwnedFd, input: &mut Input) {
    let mut socket = Some(socket);
    let mut frame = MaskFrame::default();
    let mut sequence = 0u64;
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.u8() % 10 {
            0 => {
                sequence = sequence.wrapping_add(1);
                ring.publish(sequence, input);
            }
            1 => {
                sequence = input.u64();
                ring.publish(sequence, input);
            }
            2 => {
                let (at, count) = (u64::from(input.u32()), usize::from(input.u8()));
                ring.put(at % ring.bytes.max(1), input.bytes(count));
            }
            3 => ring.put(offset_of!(RingHeader, latest) as u64, &input.u64().to_le_bytes()),
            4 => ring.put(offset_of!(RingHeader, closed) as u64, &[input.u8()]),
            5 => socket = None,
            6 => drop(socket.as_ref().map(|socket| send(socket, input.bytes(8), SendFlags::DONTWAIT | SendFlags::NOSIGNAL))),
            7 => drop(masks.wait(Some(Duration::ZERO)).map_err(|error| assert_sentence(&error.to_string()))),
            8 => report(masks.latest(&mut frame), &frame, &masks),
            _ => report(masks.next_into(&mut frame, Some(Duration::ZERO)), &frame, &masks),
        }
    }
    report(masks.latest(&mut frame), &frame, &masks);
    assert!(masks.labels().iter().all(|label| !label.contains('\0')));
    let _ = (masks.skipped(), masks.retries(), masks.metadata().len(), masks.heartbeat_ns());
}

fn report(got: Result<bool, eomt_edge_client::ClientError>, frame: &MaskFrame, masks: &Subscriber) {
    match got {
        Ok(true) => check_frame(frame, masks.labels()),
        Ok(false) => {}
        Err(error) => assert_sentence(&error.to_string()),
    }
}

/// A frame that a reader may use without looking at its numbers again, as `view --save` does.
fn check_frame(frame: &MaskFrame, labels: &[String]) {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    assert_eq!(frame.ids.len(), width * height);
    assert!(frame.segments.len() <= MAX_SEGMENTS as usize);
    let mut rgb = frame.rgb().map_or_else(|| vec![0; 3 * width * height], <[u8]>::to_vec);
    assert_eq!(rgb.len(), 3 * width * height);
    let segment = |row: &SegmentRow| {
        let SegmentRow { id, class, score, area, bbox, track_id } = *row;
        Segment { id, category_id: class, score, area, bbox, track_id }
    };
    let table: Vec<Segment> = frame.segments.iter().map(segment).collect();
    overlay::paint(&mut rgb, width, &frame.ids, &table, labels);
}
