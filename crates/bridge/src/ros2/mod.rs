//! `eomt-edge-bridge ros2`: the masks as a ROS 2 node over DDS, ROS 2's default middleware. No ROS installation is needed here.
//!
//! ```text
//! masks ─▶ messages (CDR) ─▶ one DDS writer for each topic ─▶ RViz, Foxglove, nodes
//! ```
//!
//! Invariants: those of [`publishing`](crate::publishing); a subscriber that stops holds up neither the daemon nor this program, and is served
//! again when it is back. Refuses: 16-bit JPEG; parameters and services.

mod dds;
mod images;
mod output;
mod returns;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use clap::Args;

use crate::node::{Node, NodeArgs};
use crate::options::RingArgs;
use crate::publishing::{Publishing, Transport};
use crate::stop::Stop;
use crate::topics::{Messages, Topic, TopicArgs};

use dds::{Dds, Quality, Writer};

pub use images::ImagesArgs;

/// How long others list a node that froze is up to them: 20 seconds with Fast DDS. So many samples wait for it at 30 Hz.
const SAMPLES_MAX: i32 = 600;
/// Pictures for people have some 50 kB each.
const PICTURES_MAX: i32 = 120;
/// Raw pictures have a megabyte each.
const RAW_MAX: i32 = 8;

/// Masks as a ROS 2 node (DDS)
#[derive(Debug, Args)]
pub struct Ros2Args {
    #[command(flatten)]
    ring: RingArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    topics: TopicArgs,
    /// This machine's address on the network to use; may be repeated [default: all]
    #[arg(long, value_name = "ADDRESS")]
    interface: Vec<IpAddr>,
}

impl Ros2Args {
    /// Runs until a signal comes.
    ///
    /// # Errors
    /// [`Usage`](crate::options::Usage) for names, addresses and files that are none; `DdsError`.
    pub fn run(&self) -> anyhow::Result<()> {
        let node = self.node.node()?;
        let messages = Messages::new(&self.topics)?;
        let stop = Stop::install()?;
        let carrier = Carrier::open(self, &node)?;
        log::info!("node {} in domain {}: {} topics", node.full_name(), node.domain, carrier.writers.len());
        log::debug!("DDS announces no type hashes: ros2 topic info -v shows them as invalid; the data are not affected");
        if self.topics.raw {
            log::warn!(
                "--raw: a picture has 0.6 MB or more, and receivers with default socket buffers lose most of them; there, set \
                 FASTDDS_BUILTIN_TRANSPORTS=\"UDPv4?sockets_size=4MB\" and sysctl net.core.rmem_max=4194304"
            );
        }
        let frames = Publishing::new(&self.ring.socket, &node, messages, self.topics.topics(), carrier).run(&stop)?;
        log::info!("node {} ends after {frames} frames", node.full_name());
        Ok(())
    }
}

/// The node's writers.
struct Carrier<'a> {
    args: &'a Ros2Args,
    node: &'a Node,
    // before `dds`: writers are gone before their participant
    writers: BTreeMap<Topic, Writer>,
    wanted: BTreeSet<String>,
    dds: Dds,
}

impl<'a> Carrier<'a> {
    fn open(args: &'a Ros2Args, node: &'a Node) -> anyhow::Result<Carrier<'a>> {
        let mut dds = Dds::join(node, args.node.distro, &args.interface)?;
        let mut writers = BTreeMap::new();
        for topic in args.topics.topics() {
            writers.insert(topic, dds.writer(&node.topic(topic), topic.definition(), quality(topic))?);
        }
        dds.announce()?;
        Ok(Carrier { args, node, writers, wanted: BTreeSet::new(), dds })
    }
}

impl Transport for Carrier<'_> {
    const LATCHES: bool = true;

    fn write(&mut self, topic: Topic, message: Vec<u8>) -> anyhow::Result<bool> {
        let Some(writer) = self.writers.get(&topic) else { return Ok(true) };
        Ok(writer.write(message)?)
    }

    fn look(&mut self) -> anyhow::Result<bool> {
        let anew = self.dds.must_join_again();
        if anew {
            *self = Carrier::open(self.args, self.node)?;
        }
        self.wanted = self.dds.wanted();
        Ok(anew)
    }

    fn has_subscriber(&self, topic: Topic) -> bool {
        self.writers.get(&topic).is_some_and(|writer| self.wanted.contains(writer.name()))
    }
}

fn quality(topic: Topic) -> Quality {
    let samples_max = match topic {
        topic if topic.is_raw() => RAW_MAX,
        topic if topic.is_on_demand() => PICTURES_MAX,
        _ => SAMPLES_MAX,
    };
    Quality { latched: topic.is_latched(), samples_max }
}
