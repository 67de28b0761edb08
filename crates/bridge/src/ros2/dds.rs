//! The node as DDS sees it: a participant, writers and readers of ready CDR bytes, and `ros_discovery_info`, which tells other ROS processes that
//! they belong to one node.
//!
//! Invariants: a write never waits; a reader that does not acknowledge is served from a bounded history; the node is gone from others' lists
//! as soon as [`Dds`] is dropped. Refuses: keys, XCDR version 2, type hashes (rustdds cannot announce them; receivers show the hash as invalid
//! and take the data).

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};

use eomt_edge_ros::messages::rmw_dds_common::{Gid, NodeEntitiesInfo, ParticipantEntitiesInfo, humble};
use eomt_edge_ros::{Definition, Message, cdr, dds_name};
use rustdds::bytes::{BufMut, Bytes, BytesMut};
use rustdds::dds::{CreateError, WriteError};
use rustdds::policy::{Durability, History, ResourceLimits};
use rustdds::{
    DomainParticipant, DomainParticipantBuilder, DomainParticipantStatusEvent, Duration, LostReason, Publisher, QosPolicies,
    QosPolicyBuilder, RTPSEntity, RepresentationIdentifier, StatusEvented, Subscriber, TopicKind, no_key,
};

use super::returns::Returns;
use crate::node::{Distro, Node};
use crate::options::Usage;

/// How many samples a reader that connects, or lost some, can still get.
const DEPTH: i32 = 5;
/// The last words of a node are waited for so long, in all.
const FAREWELL: std::time::Duration = std::time::Duration::from_millis(300);

/// What DDS cannot do.
#[derive(Debug, thiserror::Error)]
pub enum DdsError {
    /// No sockets, no threads, no network.
    #[error("DDS cannot start in domain {domain}")]
    Start {
        /// ROS_DOMAIN_ID.
        domain: u16,
        /// Why.
        source: CreateError,
    },
    /// A topic.
    #[error("DDS cannot make the topic {name}")]
    Topic {
        /// Its name.
        name: String,
        /// Why.
        source: CreateError,
    },
    /// Its threads are gone.
    #[error("DDS has failed while sending {name}: {reason}")]
    Broken {
        /// The topic.
        name: String,
        /// Why.
        reason: String,
    },
}

/// How a topic is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    /// The last sample goes to whoever comes later (transient local, keep last 1); else volatile, keep last 5.
    pub latched: bool,
    /// So many samples may wait for a reader that does not acknowledge them; then samples are left out, until it does or is given up.
    pub samples_max: i32,
}

impl Quality {
    /// As RTPS states it: reliable, which serves best-effort readers as well.
    pub fn policies(self) -> QosPolicies {
        let samples = self.samples_max;
        let limits = ResourceLimits { max_samples: samples, max_instances: 1, max_samples_per_instance: samples };
        QosPolicyBuilder::new()
            .reliable(Duration::ZERO)
            .durability(if self.latched { Durability::TransientLocal } else { Durability::Volatile })
            .history(History::KeepLast { depth: if self.latched { 1 } else { DEPTH } })
            .resource_limits(limits)
            .build()
    }
}

/// `ros_discovery_info`, as every distribution has it.
const DISCOVERY: Quality = Quality { latched: true, samples_max: 64 };

/// A process's part in a domain.
pub struct Dds {
    node: Node,
    distro: Distro,
    discovery: Writer,
    writers: Vec<Gid>,
    readers: Vec<Gid>,
    publisher: Publisher,
    subscriber: Subscriber,
    returns: Option<Returns>,
    // dropped last
    participant: DomainParticipant,
}

impl Dds {
    /// Joins the node's domain, on the interfaces that have these addresses; on all when there are none.
    ///
    /// # Errors
    /// [`Usage`] for an address that no interface has; [`DdsError::Start`].
    pub fn join(node: &Node, distro: Distro, interfaces: &[IpAddr]) -> anyhow::Result<Dds> {
        let mut builder = DomainParticipantBuilder::new(node.domain);
        if !interfaces.is_empty() {
            interfaces.iter().try_for_each(|&address| check(address))?;
            builder = builder.with_only_networks(interfaces.iter().copied());
        }
        let start = |source| DdsError::Start { domain: node.domain, source };
        let participant = builder.build().map_err(start)?;
        let plain = QosPolicyBuilder::new().build();
        let publisher = participant.create_publisher(&plain).map_err(start)?;
        let subscriber = participant.create_subscriber(&plain).map_err(start)?;
        let definition = ParticipantEntitiesInfo::DEFINITION;
        let discovery = Writer::new(&participant, &publisher, "ros_discovery_info".into(), definition, DISCOVERY)?;
        let returns = Returns::listen(node.domain, interfaces);
        if let Err(error) = &returns {
            log::warn!("participants that were out of reach for long are not noticed when they are back: {error}");
        }
        Ok(Dds {
            node: node.clone(),
            distro,
            discovery,
            writers: Vec::new(),
            readers: Vec::new(),
            publisher,
            subscriber,
            returns: returns.ok(),
            participant,
        })
    }

    /// A topic that the node writes. `name`: from the root.
    ///
    /// # Errors
    /// [`DdsError::Topic`].
    pub fn writer(&mut self, name: &str, definition: &Definition, quality: Quality) -> Result<Writer, DdsError> {
        let writer = Writer::new(&self.participant, &self.publisher, format!("rt{name}"), definition, quality)?;
        self.writers.push(gid(writer.inner.guid()));
        Ok(writer)
    }

    /// A topic that the node reads: the newest sample, whatever the writer offers (best effort, volatile).
    ///
    /// # Errors
    /// [`DdsError::Topic`].
    pub fn reader(&mut self, name: &str, definition: &Definition) -> Result<Reader, DdsError> {
        let name = format!("rt{name}");
        let qos = QosPolicyBuilder::new().best_effort().durability(Durability::Volatile).history(History::KeepLast { depth: 1 }).build();
        let failed = |source| DdsError::Topic { name: name.clone(), source };
        let topic = self.participant.create_topic(name.clone(), dds_name(definition), &qos, TopicKind::NoKey).map_err(failed)?;
        let reader = self.subscriber.create_simple_datareader_no_key::<Bytes, Ready>(&topic, Some(qos)).map_err(failed)?;
        self.readers.push(gid(reader.guid()));
        Ok(reader)
    }

    /// Tells others which writers and readers the node has; once all are there.
    ///
    /// # Errors
    /// [`DdsError::Broken`].
    pub fn announce(&self) -> Result<(), DdsError> {
        let node = NodeEntitiesInfo {
            node_namespace: self.node.namespace.clone(),
            node_name: self.node.name.clone(),
            reader_gid_seq: self.readers.clone(),
            writer_gid_seq: self.writers.clone(),
        };
        self.tell(vec![node])
    }

    fn tell(&self, node_entities_info_seq: Vec<NodeEntitiesInfo>) -> Result<(), DdsError> {
        let info = ParticipantEntitiesInfo { gid: gid(self.participant.guid()), node_entities_info_seq };
        self.discovery.write(discovery_bytes(&info, self.distro)).map(drop)
    }

    /// Whether a participant that was given up is back, and [`Dds::join`] must be called anew to meet it ([`super::returns`]). To be asked about
    /// once a second.
    pub fn must_join_again(&mut self) -> bool {
        let Some(returns) = &mut self.returns else { return false };
        let is_back = returns.is_one_back();
        let (listener, mut guid) = (self.participant.status_listener(), self.participant.guid());
        while let Some(event) = listener.try_recv_status() {
            if let DomainParticipantStatusEvent::ParticipantLost { id, reason: LostReason::Timeout { .. } } = event {
                guid.prefix = id;
                let [prefix @ .., _, _, _, _] = guid.to_bytes();
                returns.lost(prefix);
            }
        }
        if is_back {
            log::info!("a participant that had been given up is back: the domain is joined again");
        }
        is_back
    }

    /// Topics, with DDS's prefix, that somebody reads in this domain.
    pub fn wanted(&self) -> BTreeSet<String> {
        self.participant.discovered_readers().into_iter().map(|reader| reader.subscription_topic_data.topic_name).collect()
    }
}

impl Drop for Dds {
    fn drop(&mut self) {
        // without it others list the node until its lease ends, which takes most of a minute
        if self.tell(Vec::new()).is_ok() {
            let _ = self.discovery.inner.wait_for_acknowledgments(FAREWELL);
        }
    }
}

/// The bytes on `ros_discovery_info`.
fn discovery_bytes(info: &ParticipantEntitiesInfo, distro: Distro) -> Vec<u8> {
    if distro == Distro::Humble { humble::ParticipantEntitiesInfo::from(info).to_cdr() } else { info.to_cdr() }
}

/// rmw's id of an entity is its RTPS GUID.
fn gid(guid: rustdds::GUID) -> Gid {
    Gid { data: guid.to_bytes() }
}

/// An address that can be bound is one of this machine.
fn check(address: IpAddr) -> Result<(), Usage> {
    if address.is_ipv6() {
        return Err(Usage(format!("--interface {address}: DDS goes over IPv4 here; give the interface's IPv4 address")));
    }
    let bound = UdpSocket::bind((address, 0)).map(drop);
    bound.map_err(|error| {
        Usage(format!("--interface {address}: no interface of this machine has this address ({error}); ip addr lists them"))
    })
}

/// Writes ready messages to one topic.
pub struct Writer {
    name: String,
    inner: no_key::DataWriter<Bytes, Ready>,
}

impl Writer {
    fn new(
        participant: &DomainParticipant,
        publisher: &Publisher,
        name: String,
        definition: &Definition,
        quality: Quality,
    ) -> Result<Writer, DdsError> {
        let qos = quality.policies();
        let failed = |source| DdsError::Topic { name: name.clone(), source };
        let topic = participant.create_topic(name.clone(), dds_name(definition), &qos, TopicKind::NoKey).map_err(failed)?;
        let inner = publisher.create_datawriter_no_key::<Bytes, Ready>(&topic, Some(qos)).map_err(failed)?;
        Ok(Writer { name, inner })
    }

    /// With DDS's prefix.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message with its encapsulation header. False when a reader has not acknowledged the last ones and this one was left out.
    ///
    /// # Errors
    /// [`DdsError::Broken`].
    pub fn write(&self, message: Vec<u8>) -> Result<bool, DdsError> {
        match self.inner.write(Bytes::from(message), None) {
            Ok(()) => Ok(true),
            Err(WriteError::WouldBlock { .. }) => Ok(false),
            Err(error) => Err(DdsError::Broken { name: self.name.clone(), reason: error.to_string() }),
        }
    }
}

/// Takes ready messages off one topic.
pub type Reader = no_key::SimpleDataReader<Bytes, Ready>;

/// Messages as bytes, with their encapsulation header.
#[derive(Debug)]
pub struct Ready;

impl no_key::SerializerAdapter<Bytes> for Ready {
    type Error = std::convert::Infallible;

    fn output_encoding() -> RepresentationIdentifier {
        RepresentationIdentifier::CDR_LE
    }

    fn to_bytes(message: &Bytes) -> Result<Bytes, Self::Error> {
        // rustdds writes the header itself
        Ok(message.slice(cdr::HEADER.len()..))
    }
}

impl no_key::DeserializerAdapter<Bytes> for Ready {
    type Error = std::convert::Infallible;
    type Decoded = Bytes;

    fn supported_encodings() -> &'static [RepresentationIdentifier] {
        &[RepresentationIdentifier::CDR_LE, RepresentationIdentifier::CDR_BE]
    }

    fn transform_decoded(decoded: Bytes) -> Bytes {
        decoded
    }
}

impl no_key::DefaultDecoder<Bytes> for Ready {
    type Decoder = WithHeader;
    const DECODER: WithHeader = WithHeader;
}

/// Puts the header, which rustdds has taken off, back.
#[derive(Debug, Clone)]
pub struct WithHeader;

impl<'de> no_key::Decode<'de, Bytes> for WithHeader {
    type Error = std::convert::Infallible;

    fn decode_bytes(self, body: &'de [u8], encoding: RepresentationIdentifier) -> Result<Bytes, Self::Error> {
        let mut sample = BytesMut::with_capacity(cdr::HEADER.len() + body.len());
        sample.put_slice(&encoding.to_bytes());
        sample.put_slice(&[0, 0]);
        sample.put_slice(body);
        Ok(sample.freeze())
    }
}

#[cfg(test)]
mod tests {
    use eomt_edge_ros::messages::builtin_interfaces::Time;
    use rustdds::no_key::{Decode, SerializerAdapter};
    use rustdds::policy::Reliability;

    use super::*;

    #[test]
    fn topics_are_reliable_and_never_wait() {
        let latched = Quality { latched: true, samples_max: 8 }.policies();
        assert_eq!((latched.durability(), latched.history()), (Some(Durability::TransientLocal), Some(History::KeepLast { depth: 1 })));
        let plain = Quality { latched: false, samples_max: 600 }.policies();
        assert_eq!((plain.durability(), plain.history()), (Some(Durability::Volatile), Some(History::KeepLast { depth: 5 })));
        assert_eq!(plain.reliability(), Some(Reliability::Reliable { max_blocking_time: Duration::ZERO }));
        assert_eq!(plain.resource_limits().map(|limits| limits.max_samples), Some(600));
    }

    #[test]
    fn ids_and_discovery_bytes_of_both_kinds() {
        let bytes: [u8; 16] = std::array::from_fn(|i| i as u8 + 1);
        let id = gid(rustdds::GUID::from_bytes(bytes));
        assert_eq!(id.data, bytes);
        let node = NodeEntitiesInfo {
            node_namespace: "/".into(),
            node_name: "n".into(),
            reader_gid_seq: vec![],
            writer_gid_seq: vec![id.clone()],
        };
        let info = ParticipantEntitiesInfo { gid: id, node_entities_info_seq: vec![node] };
        let (later, humble) = (discovery_bytes(&info, Distro::Kilted), discovery_bytes(&info, Distro::Humble));
        assert_eq!(ParticipantEntitiesInfo::from_cdr(&later), Ok(info));
        assert_eq!((later[4..20].to_vec(), humble[4..20].to_vec(), &humble[20..28]), (bytes.to_vec(), bytes.to_vec(), &[0; 8][..]));
        assert_eq!(humble.len(), later.len() + 16);
    }

    #[test]
    fn messages_pass_through_with_their_header() {
        let message = Time { sec: 1, nanosec: 2 }.to_cdr();
        let body = Ready::to_bytes(&Bytes::from(message.clone())).unwrap();
        assert_eq!(body, message[4..]);
        assert_eq!(WithHeader.decode_bytes(&body, RepresentationIdentifier::CDR_LE).unwrap(), message);
        assert_eq!(WithHeader.decode_bytes(&body, RepresentationIdentifier::CDR_BE).unwrap()[..4], [0, 0, 0, 0]);
    }

    #[test]
    fn a_foreign_address_is_refused() {
        check(IpAddr::from([127, 0, 0, 1])).unwrap();
        // TEST-NET-1 of RFC 5737
        assert!(check(IpAddr::from([192, 0, 2, 1])).unwrap_err().to_string().contains("192.0.2.1: no interface"));
        assert!(check(IpAddr::from([0; 16])).is_err());
    }
}
