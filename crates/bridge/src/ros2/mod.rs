//! `eomt-edge-bridge ros2`: the masks as a ROS 2 node over DDS, ROS 2's default middleware. No ROS installation is needed here.
//!
//! ```text
//! masks ─▶ messages (CDR) ─▶ one DDS writer for each topic ─▶ RViz, Foxglove, nodes
//! ```
//!
//! Invariants: the daemon and subscribers may come and go in any order; a subscriber that stops holds up neither the daemon nor this program;
//! what costs much (overlay, camera frame, raw pictures) is made only while somebody subscribes. Refuses: 16-bit JPEG; parameters and services.

mod dds;
mod images;
mod returns;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use clap::Args;

use crate::cli::RingArgs;
use crate::clock::{StampClock, monotonic_ns, realtime_ns};
use crate::masks::{Masks, News};
use crate::node::{Node, NodeArgs};
use crate::stop::{self, Stop};
use crate::topics::{Health, Messages, Topic, TopicArgs};

use dds::{Dds, Quality, Writer};

pub use images::ImagesArgs;

/// A signal is noticed within this.
const PATIENCE: Duration = Duration::from_millis(200);

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
    /// [`Usage`](crate::cli::Usage) for names, addresses and files that are none; [`DdsError`](dds::DdsError).
    pub fn run(&self) -> anyhow::Result<()> {
        let node = self.node.node()?;
        let messages = Messages::new(&self.topics)?;
        let stop = Stop::install()?;
        let mut bridge = Bridge::new(self, &node, messages);
        let mut link = Link::join(self, &node)?;
        log::info!("node {} in domain {}: {} topics", node.full_name(), node.domain, link.writers.len());
        log::debug!("DDS announces no type hashes: ros2 topic info -v shows them as invalid; the data are not affected");
        if self.topics.raw {
            log::warn!(
                "--raw: a picture has 0.6 MB or more, and receivers with default socket buffers lose most of them; there, set \
                 FASTDDS_BUILTIN_TRANSPORTS=\"UDPv4?sockets_size=4MB\" and sysctl net.core.rmem_max=4194304"
            );
        }
        stop::ready();
        while !stop.requested() {
            bridge.turn(&mut link)?;
            if link.is_over {
                drop(link);
                link = Link::join(self, &node)?;
                bridge.labels_of = 0;
            }
        }
        log::info!("node {} ends after {} frames", node.full_name(), bridge.frames);
        Ok(())
    }
}

/// The node in its domain, until it must join anew.
struct Link {
    // before `dds`: writers are gone before their participant
    writers: BTreeMap<Topic, Writer>,
    /// Topics that somebody reads.
    wanted: BTreeSet<String>,
    is_over: bool,
    dds: Dds,
}

impl Link {
    fn join(args: &Ros2Args, node: &Node) -> anyhow::Result<Link> {
        let mut dds = Dds::join(node, args.node.distro, &args.interface)?;
        let mut writers = BTreeMap::new();
        for topic in args.topics.topics() {
            writers.insert(topic, dds.writer(&node.topic(topic), topic.definition(), quality(topic))?);
        }
        dds.announce()?;
        Ok(Link { writers, wanted: BTreeSet::new(), is_over: false, dds })
    }

    fn listens(&self, topic: Topic) -> bool {
        self.writers.get(&topic).is_some_and(|writer| !topic.is_on_demand() || self.wanted.contains(writer.name()))
    }
}

/// What the node knows.
struct Bridge {
    masks: Masks,
    clock: StampClock,
    health: Health,
    messages: Messages,
    /// Of the connection whose labels were sent last.
    labels_of: u64,
    frames: u64,
    left_out: BTreeMap<Topic, u64>,
}

impl Bridge {
    fn new(args: &Ros2Args, node: &Node, messages: Messages) -> Bridge {
        Bridge {
            masks: Masks::new(&args.ring.socket),
            clock: StampClock::default(),
            health: Health::new(&node.full_name()[1..], &args.ring.socket),
            messages,
            labels_of: 0,
            frames: 0,
            left_out: BTreeMap::new(),
        }
    }

    /// Waits for a frame, a second, or a signal, and tells what there is to tell.
    fn turn(&mut self, link: &mut Link) -> anyhow::Result<()> {
        if matches!(self.masks.next(PATIENCE), News::Frame(_)) {
            self.frame(link)?;
        }
        let now_ns = monotonic_ns();
        if self.health.is_due(now_ns) { self.second(link, now_ns) } else { Ok(()) }
    }

    fn frame(&mut self, link: &Link) -> anyhow::Result<()> {
        let (frame, facts) = (self.masks.frame(), self.masks.facts());
        let stamp_ns = self.clock.of(frame);
        self.frames += 1;
        self.health.frame(frame, monotonic_ns());
        let mut messages = self.messages.of_frame(frame, facts, stamp_ns, |topic| link.listens(topic))?;
        if self.labels_of != self.masks.connections() {
            self.labels_of = self.masks.connections();
            messages.push((Topic::LabelInfo, self.messages.label_info(facts, stamp_ns)));
        }
        messages.into_iter().try_for_each(|(topic, message)| self.write(link, topic, message))
    }

    /// What is due once a second: who listens, how the daemon is doing.
    fn second(&mut self, link: &mut Link, now_ns: u64) -> anyhow::Result<()> {
        link.wanted = link.dds.wanted();
        link.is_over = link.dds.must_join_again();
        let report = self.health.report(&self.masks, now_ns, realtime_ns());
        self.write(link, Topic::Diagnostics, report)?;
        for (topic, count) in std::mem::take(&mut self.left_out) {
            log::warn!("{}: {count} messages left out, as a subscriber acknowledges nothing", topic.name());
        }
        let state = if self.masks.is_connected() { "daemon there" } else { "no daemon" };
        stop::alive(&format!("{state}, {} frames", self.frames));
        Ok(())
    }

    fn write(&mut self, link: &Link, topic: Topic, message: Vec<u8>) -> anyhow::Result<()> {
        if let Some(writer) = link.writers.get(&topic)
            && !writer.write(message)?
        {
            *self.left_out.entry(topic).or_default() += 1;
        }
        Ok(())
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
