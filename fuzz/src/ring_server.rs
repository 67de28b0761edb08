//! The mask server against hostile readers: the input is what they do.
//!
//! ```text
//! operation (u8) | its operands | next operation ...
//! ```
//! A real server serves a real ring in this process. After each operation a frame is published, and an honest reader, which was there
//! first, must be woken for it and read it. In the end the hostile ones are gone, and another honest reader must get in.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use eomt_edge::sink::ring::{MaskServer, RingConfig, RingWriter, ServerConfig};
use eomt_edge_client::{MaskFrame, Subscriber};
use eomt_edge_core::data::FrameReport;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, ftruncate, open};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, send, sendmsg, shutdown, socket_with,
};

use super::input::Input;
use super::scratch::Scratch;

/// Operations of one input.
const STEPS_MAX: usize = 32;
/// Hostile readers at a time.
const READERS_MAX: usize = 12;
/// Ends a hang: whoever waits so long waits for ever.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let scratch = Scratch::new();
    let path = scratch.join("masks.sock");
    let before = descriptors();
    {
        let mut ring = new_ring();
        let config = ServerConfig { clients_max: 8, ..ServerConfig::new(&path) };
        let server = MaskServer::start(config, &ring).expect("a new path");
        let mut generation = 1;
        let mut honest = Honest::connect(&path, generation);
        let mut hostile = Vec::new();
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            match input.u8() % 12 {
                11 => {
                    hostile.clear();
                    ring = new_ring();
                    server.replace_ring(&ring).expect("descriptors");
                    generation += 1;
                    honest = Honest::connect(&path, generation);
                }
                operation => act(operation, &path, &mut hostile, &mut input),
            }
            honest.reads_a_frame(&mut ring);
        }
        drop(hostile);
        let mut late = Honest::connect(&path, generation);
        late.reads_a_frame(&mut ring);
        drop(ring);
        server.stop();
    }
    // what clients have sent is closed by a thread that nobody joins
    let deadline = Instant::now() + PATIENCE;
    while descriptors() != before && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(descriptors(), before, "descriptors are left open");
    assert!(!path.exists(), "the socket is left behind");
}

fn new_ring() -> RingWriter {
    let config = RingConfig { slots: 2, max_width: 8, max_height: 4, max_segments: 2, ..RingConfig::default() };
    RingWriter::create(&config, r#"{"labels": ["road"]}"#, 0).expect("a small ring")
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// A reader that does nothing but read.
struct Honest {
    masks: Subscriber,
    frame: MaskFrame,
}

impl Honest {
    /// A reader of the server's ring number `generation`. Hostile readers may fill the server for a while; it must notice when they are
    /// gone. A ring is replaced by the server's thread, soon after it is told.
    fn connect(path: &Path, generation: u64) -> Honest {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Subscriber::connect_retry(path, PATIENCE) {
                Ok(masks) if masks.generation() == generation => return Honest { masks, frame: MaskFrame::default() },
                // the ring before, which is closed
                Ok(_) => {}
                Err(error) => panic!("the server has no room: {error}"),
            }
            assert!(Instant::now() < deadline, "the server goes on with the old ring");
            std::thread::yield_now();
        }
    }

    /// Publishes a frame, which must wake this reader and be the one that it reads.
    fn reads_a_frame(&mut self, ring: &mut RingWriter) {
        let mut slot = ring.begin(8, 4).expect("as large as the ring");
        slot.ids().fill(7);
        let sequence = slot.finish(&FrameReport::default(), &[]);
        let patience = Timespec::try_from(PATIENCE).expect("seconds");
        let mut fds = [PollFd::new(&self.masks, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&patience))).expect("poll");
        assert!(ready == 1, "no wake-up for frame {sequence}");
        let read = self.masks.next_into(&mut self.frame, Some(PATIENCE));
        assert!(matches!(read, Ok(true)), "frame {sequence} is not read: {read:?}");
        assert!(self.frame.sequence() == sequence && self.frame.ids == [7; 32], "frame {sequence}: {:?}", self.frame.info);
    }
}

/// A hostile reader: its socket, and what came with the hello.
struct Hostile {
    socket: OwnedFd,
    descriptors: Vec<OwnedFd>,
}

fn act(operation: u8, path: &Path, hostile: &mut Vec<Hostile>, input: &mut Input) {
    let choice = usize::from(input.u8());
    match operation {
        0 | 1 if hostile.len() < READERS_MAX => hostile.extend(reader(path, operation == 0)),
        2 => drop((0..choice % 16).map(|_| reader(path, false)).collect::<Vec<_>>()),
        3 => hostile.clear(),
        4 => {
            // the wrong kind of socket
            let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
            let _ = connect(&stream, &SocketAddrUnix::new(path).expect("a short path"));
        }
        _ => {
            let index = choice % hostile.len().max(1);
            let Some(reader) = hostile.get_mut(index) else { return };
            match operation {
                5 => drop(hostile.swap_remove(index)),
                6 => drop(shutdown(&reader.socket, [Shutdown::Read, Shutdown::Write, Shutdown::Both][choice / 16 % 3])),
                7 => drop(send(&reader.socket, input.bytes(choice), SendFlags::DONTWAIT | SendFlags::NOSIGNAL)),
                8 => tamper(reader, choice / 16, input),
                9 => send_descriptors(reader),
                _ => drop(reader.descriptors.pop()),
            }
        }
    }
}

/// Connects; with `hello` it also receives, else the server's message stays where it is.
fn reader(path: &Path, hello: bool) -> Option<Hostile> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket");
    connect(&socket, &SocketAddrUnix::new(path).expect("a short path")).ok()?;
    let mut descriptors = Vec::new();
    if hello {
        let patience = Timespec::try_from(PATIENCE).expect("seconds");
        let mut fds = [PollFd::new(&socket, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&patience))).expect("poll");
        assert!(ready == 1, "neither a hello nor a hang-up");
        let mut bytes = [0; 128];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
    }
    Some(Hostile { socket, descriptors })
}

/// What a reader can do to a descriptor that it shares with the server. None of it waits: the descriptor it works on is its own.
fn tamper(reader: &Hostile, choice: usize, input: &mut Input) {
    let Some(descriptor) = reader.descriptors.get(choice % 2) else { return };
    let flags = || fcntl_getfl(descriptor).unwrap_or(OFlags::empty());
    let again =
        |flags| open(format!("/proc/self/fd/{}", descriptor.as_raw_fd()), flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    // more than any counter or pipe holds
    let fill = |descriptor: &OwnedFd, bytes: &[u8]| (0..64).any(|_| rustix::io::write(descriptor, bytes).is_err());
    match choice / 2 % 8 {
        0 => drop(fcntl_setfl(descriptor, flags() - OFlags::NONBLOCK)),
        1 => drop(fcntl_setfl(descriptor, flags() | OFlags::NONBLOCK | OFlags::APPEND)),
        2 => {
            let nonblocking = fcntl_setfl(descriptor, flags() | OFlags::NONBLOCK).is_ok();
            let _ = nonblocking && fill(descriptor, &(u64::MAX - 1).to_ne_bytes());
        }
        3 => {
            let nonblocking = fcntl_setfl(descriptor, flags() | OFlags::NONBLOCK).is_ok();
            let _ = nonblocking && rustix::io::read(descriptor, &mut [0; 64]).is_ok();
        }
        4 => drop(again(OFlags::WRONLY).map(|writer| fill(&writer, &[0; 4096]))),
        5 => drop(again(OFlags::RDWR).map(|both| rustix::io::read(&both, &mut [0; 8]))),
        6 => drop(ftruncate(descriptor, u64::from(input.u16()))),
        _ => drop(fcntl_setfl(descriptor, OFlags::ASYNC | flags())),
    }
}

fn send_descriptors(reader: &Hostile) {
    let descriptors = [reader.socket.as_fd(); 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "the space is made for four descriptors");
    let _ = sendmsg(&reader.socket, &[IoSlice::new(b"x")], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}
