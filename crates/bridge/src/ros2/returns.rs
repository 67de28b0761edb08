//! Whether a participant that was given up is back: a laptop that was out of reach for longer than its lease, or a process that was frozen.
//!
//! rustdds gives it up and then takes its announcements for repeated ones, as Fast DDS numbers them all alike; the two would never meet again.
//! So this looks at who announces itself, and the owner joins the domain anew, under another id.
//!
//! Invariants: nothing is read of a datagram but its sender's id; one look takes a bounded time. Refuses: participants that do not announce
//! themselves by multicast.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

/// Where participants announce themselves (DDSI-RTPS 2.5, 9.6.1): 239.255.0.1, port 7400 + 250 for each domain.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 0, 1);
const PORT: u16 = 7400;
const PORTS_OF_A_DOMAIN: u16 = 250;

/// So many datagrams are looked at in one call; the kernel leaves out what its buffer does not hold.
const LOOK_MAX: usize = 4096;

/// The first 12 bytes of all ids of a participant.
pub type Prefix = [u8; 12];

/// Listens to announcements.
#[derive(Debug)]
pub struct Returns {
    socket: UdpSocket,
    lost: BTreeSet<Prefix>,
}

impl Returns {
    /// Listens beside the participant's own sockets; on the interfaces with these addresses, or the one that the system takes for the group.
    ///
    /// # Errors
    /// When the port or the group cannot be had.
    pub fn listen(domain: u16, interfaces: &[IpAddr]) -> io::Result<Returns> {
        let descriptor = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        sockopt::set_socket_reuseaddr(&descriptor, true)?;
        bind(&descriptor, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT + PORTS_OF_A_DOMAIN * domain)))?;
        let socket = UdpSocket::from(descriptor);
        socket.set_nonblocking(true)?;
        if interfaces.is_empty() {
            socket.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED)?;
        }
        for interface in interfaces {
            if let IpAddr::V4(address) = interface {
                socket.join_multicast_v4(&GROUP, address)?;
            }
        }
        Ok(Returns { socket, lost: BTreeSet::new() })
    }

    /// This one was given up.
    pub fn lost(&mut self, prefix: Prefix) {
        self.lost.insert(prefix);
    }

    /// Whether one that was given up has announced itself since the last call.
    pub fn is_one_back(&mut self) -> bool {
        let (mut back, mut datagram) = (false, [0; 20]);
        for _ in 0..LOOK_MAX {
            // what is longer is cut; that it is longer does not matter
            let Ok(bytes) = self.socket.recv(&mut datagram) else { break };
            back |= sender(&datagram[..bytes]).is_some_and(|prefix| self.lost.remove(&prefix));
        }
        back
    }
}

/// Whose message it is: `RTPS`, version, vendor, prefix.
fn sender(datagram: &[u8]) -> Option<Prefix> {
    let rest = datagram.strip_prefix(b"RTPS")?;
    rest.get(4..16)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_stands_after_version_and_vendor() {
        let message = [&b"RTPS\x02\x03\x01\x12"[..], &[7; 12]].concat();
        assert_eq!(sender(&message), Some([7; 12]));
        assert_eq!(sender(&message[..19]), None);
        assert_eq!(sender(b"RTPX\x02\x03\x01\x12aaaaaaaaaaaa"), None);
        assert_eq!(sender(b""), None);
    }
}
