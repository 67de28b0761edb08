//! The end of a connection: what a client has sent and nobody received is closed by a thread that nobody waits for.
//!
//! Closing a socket closes the descriptors in its queue too, and closing somebody else's file takes as long as that one likes (a TCP
//! connection that lingers, a network file system whose server is gone). Linux 6.16 lets us refuse such descriptors
//! (`bind.rs`); older kernels queue them. So a connection that ends is first *frozen*: shut down, which its client sees at once
//! and after which nothing more can be queued. With an empty queue nothing of the client's is closed along with it, and the caller
//! closes it itself, so that its place is free at once. All others go to the thread `mask-closer`.
//!
//! Invariants: [`Closer::hand_over`] never waits; what it was given counts as waiting until it is closed, so the caller can bound it. Nobody joins
//! the thread: it ends with the process, or once its last order is done.
//! Refuses: to receive what a client sent.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, Shutdown, recvmsg, shutdown};

/// Ends a connection for its client, and for what that one may still send. True if its queue is empty and stays so, which means that to close it
/// closes nothing else.
pub(super) fn freeze(socket: &OwnedFd) -> bool {
    if shutdown(socket, Shutdown::Both).is_err() {
        return false;
    }
    // An empty message, which may carry descriptors too, is not told from the end by its length. With this option every message has
    // credentials to give, and says so when there is no room for them; the end has none.
    if set_socket_passcred(socket, true).is_err() {
        return false;
    }
    let mut byte = [0u8; 1];
    let looked =
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut RecvAncillaryBuffer::default(), RecvFlags::PEEK | RecvFlags::DONTWAIT);
    looked.is_ok_and(|message| message.bytes == 0 && !message.flags.contains(ReturnFlags::CTRUNC))
}

/// Orders for the closing thread. Closes in the order of handing over.
pub(super) struct Closer<T = OwnedFd> {
    orders: SyncSender<T>,
    /// Whose they are, if a user's; the oldest first.
    waiting: VecDeque<Option<u32>>,
    /// Closed since [`Closer::take_note`] last looked.
    closed: Arc<AtomicUsize>,
}

impl<T: Send + 'static> Closer<T> {
    /// Starts the thread. The caller sees to it that no more than `waiting_max` wait.
    pub fn start(waiting_max: usize) -> io::Result<Closer<T>> {
        let (orders, given) = sync_channel::<T>(waiting_max);
        let closed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&closed);
        std::thread::Builder::new().name("mask-closer".into()).spawn(move || {
            for order in given {
                drop(order);
                count.fetch_add(1, Ordering::Release);
            }
        })?;
        Ok(Closer { orders, waiting: VecDeque::new(), closed })
    }

    /// Has `order` closed, which belongs to a process of user `uid`, or to nobody in particular.
    pub fn hand_over(&mut self, order: T, uid: Option<u32>) {
        match self.orders.try_send(order) {
            Ok(()) => self.waiting.push_back(uid),
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => {
                // A mistake of the caller's, or the thread has died. A descriptor lost is better than a thread that stands still.
                log::error!("a connection is left open: {} wait to be closed already", self.waiting.len());
                std::mem::forget(order);
            }
        }
    }

    /// Forgets what has been closed meanwhile.
    pub fn take_note(&mut self) {
        let closed = self.closed.swap(0, Ordering::Acquire);
        self.waiting.drain(..closed.min(self.waiting.len()));
    }

    /// How many are not closed yet, as of the last note.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many of these are of this user.
    pub fn waiting_of(&self, uid: u32) -> usize {
        self.waiting.iter().filter(|&&owner| owner == Some(uid)).count()
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    use std::sync::mpsc::Receiver;

    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("two sockets")
    }

    fn send(socket: &OwnedFd, data: &[u8], fds: &[&OwnedFd]) -> Result<usize, Errno> {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(&fds)), "the space is made for one descriptor");
        sendmsg(socket, &[IoSlice::new(data)], &mut control, SendFlags::NOSIGNAL)
    }

    /// Bytes, and whether a descriptor comes with them.
    type Message = (&'static [u8], bool);

    #[test]
    fn what_a_client_sent_is_seen_whatever_its_form() {
        let (other, _kept) = pair();
        let cases: [(&str, &[Message]); 6] = [
            ("nothing", &[]),
            ("data", &[(b"x", false)]),
            ("an empty message", &[(b"", false)]),
            ("data with a descriptor", &[(b"x", true)]),
            ("an empty message with a descriptor", &[(b"", true)]),
            ("a descriptor behind an empty message", &[(b"", false), (b"", true)]),
        ];
        for hangs_up in [false, true] {
            for (what, messages) in cases {
                let (ours, client) = pair();
                for &(data, with_descriptor) in messages {
                    let fds: &[&OwnedFd] = if with_descriptor { &[&other] } else { &[] };
                    assert_eq!(send(&client, data, fds), Ok(data.len()), "{what}");
                }
                let client = (!hangs_up).then_some(client);
                assert_eq!(freeze(&ours), messages.is_empty(), "{what}, the client {}", if hangs_up { "gone" } else { "there" });
                let Some(client) = client else { continue };
                assert_eq!(send(&client, b"late", &[&other]), Err(Errno::PIPE), "{what}: nothing more comes in");
                assert_eq!(rustix::net::recv(&client, &mut [0u8; 1], RecvFlags::DONTWAIT).map(|(_, len)| len), Ok(0), "it knows");
            }
        }
    }

    #[test]
    fn a_hello_that_is_on_its_way_still_arrives() {
        let (ours, client) = pair();
        assert_eq!(send(&ours, b"no place", &[]), Ok(8));
        assert!(freeze(&ours));
        drop(ours);
        let mut text = [0u8; 16];
        assert_eq!(rustix::net::recv(&client, &mut text, RecvFlags::DONTWAIT).map(|(_, len)| len), Ok(8));
    }

    /// Closes when its gate opens.
    struct Slow(Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }

    #[test]
    fn whoever_hands_over_goes_on_and_knows_what_is_not_closed_yet() {
        let mut closer = Closer::start(4).expect("a thread");
        let gates: Vec<SyncSender<()>> = [Some(1), Some(2), None, Some(1)]
            .into_iter()
            .map(|uid| {
                let (gate, closed) = sync_channel(1);
                closer.hand_over(Slow(closed), uid);
                gate
            })
            .collect();
        closer.take_note();
        assert_eq!((closer.waiting(), closer.waiting_of(1), closer.waiting_of(2)), (4, 2, 1));
        for (left, gate) in gates.into_iter().enumerate().map(|(at, gate)| (3 - at, gate)) {
            drop(gate);
            while closer.waiting() > left {
                std::thread::yield_now();
                closer.take_note();
            }
            assert_eq!(closer.waiting(), left, "the others' gates are shut");
        }
    }
}
