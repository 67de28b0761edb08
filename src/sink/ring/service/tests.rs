//! Clients that leave descriptors behind which take long to close. Since Linux 6.16 a client cannot send any to [`crate::socket`]'s
//! listener, so this one is made without that option, as older kernels would have it. All sockets are this process's own.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;

use eomt_edge_client::{ClientError, Subscriber};
use eomt_edge_core::data::FrameReport;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType, bind, connect, listen, sendmsg,
    socket_with,
};

use super::super::server::MASK_SOCKET;
use super::super::{RingConfig, RingWriter};
use super::*;
use crate::socket::{Address, Place, SocketName};

/// Waiting for so long means that it never comes. A close that lingers does so for longer.
const PATIENCE: Duration = Duration::from_secs(60);
const LINGER: Duration = Duration::from_secs(300);

fn seqpacket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).expect("a socket")
}

/// Removed at its end.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A service whose turns the test takes, in a directory of its own.
struct Fixture {
    dir: Dir,
    ring: RingWriter,
    service: Service,
    events: Vec<epoll::Event>,
}

impl Fixture {
    fn new(limits: Limits) -> Fixture {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("eomt-ring-closing-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).expect("a directory for the test");
        let ring = new_ring(8);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
        let shared = Shared { commands: Arc::default(), wake: Arc::new(wake), clients: Arc::default(), turns: Arc::default() };
        let path = dir.join("masks.sock");
        let listener = seqpacket();
        bind(&listener, &SocketAddrUnix::new(&path).expect("a short path")).expect("a free path");
        listen(&listener, 128).expect("a bound socket");
        let stat = rustix::fs::stat(&path).expect("the socket");
        let name = SocketName { path: path.clone(), dev: stat.st_dev, ino: stat.st_ino };
        let address = Address::new(&path, MASK_SOCKET, 0o600, None).expect("an absolute path");
        let keeper = Keeper::new(Arc::new(Place::new(name, None)), address, Instant::now());
        let closer = Closer::start(limits.waiting_max()).expect("a thread");
        let service = Service::new(shared, listener, keeper, ring.share().expect("descriptors"), limits, closer).expect("epoll");
        Fixture { dir: Dir(dir), ring, service, events: Vec::with_capacity(32) }
    }

    fn socket(&self) -> PathBuf {
        self.dir.0.join("masks.sock")
    }

    fn turn(&mut self) {
        assert_eq!(self.service.turn(&mut self.events), Ok(true));
    }

    /// What `client` does, in a thread of its own, while the service takes its turns.
    fn serve<R: Send>(&mut self, client: impl FnOnce(&Path) -> R + Send) -> R {
        let (path, wake) = (self.socket(), Arc::clone(&self.service.shared.wake));
        std::thread::scope(|scope| {
            let client = scope.spawn(move || {
                let result = client(&path);
                let _ = rustix::io::write(&wake, &1u64.to_ne_bytes());
                result
            });
            while !client.is_finished() {
                self.turn();
            }
            client.join().expect("no panic")
        })
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Service) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(&mut self.service) {
            assert!(Instant::now() < deadline, "waited for {what}");
            self.turn();
        }
    }

    fn connect(&mut self) -> Result<Subscriber, ClientError> {
        self.serve(|path| Subscriber::connect_within(path, PATIENCE))
    }

    /// A reader gets the next frame.
    fn assert_served(&mut self, reader: &mut Subscriber) {
        let sequence = publish(&mut self.ring);
        let frame = self.serve(|_| reader.next(Some(PATIENCE))).expect("a live ring").expect("a frame in time");
        assert_eq!(frame.sequence(), sequence);
    }
}

fn new_ring(max_width: u32) -> RingWriter {
    let config = RingConfig { slots: 3, max_width, max_height: 8, max_segments: 2, ..RingConfig::default() };
    RingWriter::create(&config, r#"{"labels": ["car"]}"#, 0).expect("a small ring")
}

fn publish(ring: &mut RingWriter) -> u64 {
    let mut slot = ring.begin(4, 4).expect("a frame that fits");
    slot.ids().fill(0);
    slot.finish(&FrameReport::default(), &[])
}

/// A TCP connection that cannot be closed as long as its other end, which comes second, neither reads nor goes.
fn lingering() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut near = TcpStream::connect(listener.local_addr().expect("bound")).expect("our own listener");
    let (far, _) = listener.accept().expect("connected above");
    set_socket_linger(&near, Some(LINGER)).expect("a TCP socket");
    near.set_nonblocking(true).expect("our own socket");
    while near.write(&[0u8; 65_536]).is_ok() {}
    (near.into(), far)
}

/// Connects, sends a connection that lingers, and gives up its own copy of it. `None` if the service was quicker to refuse the client.
fn leave_behind(path: &Path) -> Option<(OwnedFd, TcpStream)> {
    let (near, far) = lingering();
    let client = seqpacket();
    connect(&client, &SocketAddrUnix::new(path).expect("a short path")).ok()?;
    let fds = [near.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "the space is made for one descriptor");
    match sendmsg(&client, &[IoSlice::new(b"x")], &mut control, SendFlags::NOSIGNAL) {
        Ok(_) => Some((client, far)),
        Err(_) => {
            drop(far); // else to drop `near` would wait
            None
        }
    }
}

#[test]
fn what_takes_long_to_close_holds_up_nobody_and_counts() {
    let mut fixture = Fixture::new(Limits { clients_max: 8, clients_per_user_max: 3 });
    let mut honest = fixture.connect().expect("a place");
    let left: Vec<(OwnedFd, TcpStream)> = (0..2).map(|_| leave_behind(&fixture.socket()).expect("nobody looks at it yet")).collect();
    fixture.until("the senders to be dropped", |service| service.closer.waiting() == 2);
    for _ in 0..20 {
        fixture.assert_served(&mut honest);
    }
    assert_eq!(fixture.service.closer.waiting(), 2, "the first still lingers, the second is behind it");
    // They are this user's readers until they are closed.
    let uid = rustix::process::geteuid().as_raw();
    let error = fixture.connect().expect_err("two are not closed yet, and one reads").to_string();
    let expected = format!("user {uid} has 3 readers already, ring.max_clients_per_user (2 of them have left");
    assert!(error.contains(&expected), "{error}");
    assert_eq!(fixture.service.closer.waiting(), 2, "who is refused without a word is forgotten at once");
    drop(left);
    fixture.until("the kernel to close them", |service| service.closer.waiting() == 0);
    let mut second = fixture.connect().expect("places again");
    fixture.assert_served(&mut second);
    fixture.assert_served(&mut honest);
}

#[test]
fn a_flood_of_them_is_bounded_and_readers_stay() {
    let mut fixture = Fixture::new(Limits { clients_max: 4, clients_per_user_max: 2 });
    let mut honest = fixture.connect().expect("a place");
    let mut left = Vec::new();
    for _ in 0..10 {
        // Nobody accepts while they come, so what they send is queued before they are refused.
        left.extend(leave_behind(&fixture.socket()));
    }
    assert_eq!(left.len(), 10);
    // The first had a place; the others were refused until it was enough.
    fixture.until("as many as may wait", |service| service.closer.waiting() >= 4 && service.readers.len() == 1);
    let waiting = fixture.service.closer.waiting();
    assert!(waiting <= 5, "{waiting}");
    for _ in 0..20 {
        fixture.assert_served(&mut honest);
        assert_eq!(fixture.service.closer.waiting(), waiting, "the others stay in the listener's queue");
    }
    // A new ring: its readers learn that at once, whatever waits to be closed.
    let new = new_ring(16);
    fixture.service.shared.commands.put(Command::Replace(new.share().expect("descriptors")));
    fixture.ring.close();
    let _ = rustix::io::write(&fixture.service.shared.wake, &1u64.to_ne_bytes());
    let end = fixture.serve(|_| {
        loop {
            match honest.next(Some(PATIENCE)) {
                Ok(frame) => assert!(frame.is_some(), "the end in time"),
                Err(error) => break error,
            }
        }
    });
    assert!(matches!(end, ClientError::Ended { clean: true, .. }), "{end}");
    fixture.ring = new;
    drop(left);
    fixture.until("the kernel to close them", |service| service.closer.waiting() == 0);
    let mut honest = fixture.serve(|path| Subscriber::connect_retry(path, PATIENCE)).expect("places again");
    fixture.assert_served(&mut honest);
}

#[test]
fn a_socket_that_is_replaced_and_a_stop_wait_for_no_close() {
    let mut fixture = Fixture::new(Limits { clients_max: 4, clients_per_user_max: 4 });
    let left: Vec<(OwnedFd, TcpStream)> = (0..4).map(|_| leave_behind(&fixture.socket()).expect("nobody looks at it yet")).collect();
    fixture.until("the senders to be dropped", |service| service.closer.waiting() == 4);
    // Not accepted any more: they go with the listener.
    let late = leave_behind(&fixture.socket()).expect("room in the queue");
    drop(left);
    // Without a turn: with a place free again, the server would accept the late one.
    let deadline = Instant::now() + PATIENCE;
    while fixture.service.closer.waiting() > 0 {
        assert!(Instant::now() < deadline, "the kernel closes them");
        std::thread::sleep(Duration::from_millis(1));
        fixture.service.closer.take_note();
    }
    std::fs::remove_file(fixture.socket()).expect("ours to remove");
    let listener = std::os::fd::AsRawFd::as_raw_fd(&fixture.service.listener);
    fixture.until("the socket to come back", |service| std::os::fd::AsRawFd::as_raw_fd(&service.listener) != listener);
    let mut honest = fixture.serve(|path| Subscriber::connect_retry(path, PATIENCE)).expect("the new socket");
    fixture.assert_served(&mut honest);
    // The stop, with a reader and with what waits. This call would not return.
    let Fixture { service, dir, .. } = fixture;
    service.shared.commands.put(Command::Stop);
    let _ = rustix::io::write(&service.shared.wake, &1u64.to_ne_bytes());
    service.run();
    drop((late, dir));
}
