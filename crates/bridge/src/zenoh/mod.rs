//! `eomt-edge-bridge zenoh`: the masks as a ROS 2 node for those whose middleware is rmw_zenoh. No ROS installation is needed here.
//!
//! rmw_zenoh's nodes find each other through a router on port 7447 and see nobody without one. Where none runs, `--router` is it.
//!
//! Invariants: those of [`publishing`](crate::publishing); a session whose router is away waits for it. A subscriber that stops costs a write as long
//! as Zenoh takes to give the message up (`CongestionControl::Drop`), and the daemon nothing. Refuses: services, parameters; TLS (a router does it).

mod names;

use std::collections::BTreeMap;

use clap::Args;
use sha2::{Digest, Sha256};
use zenoh::liveliness::LivelinessToken;
use zenoh::pubsub::Publisher;
use zenoh::qos::CongestionControl;
use zenoh::{Config, Session, Wait};

use crate::clock::realtime_ns;
use crate::node::{Node, NodeArgs};
use crate::options::{RingArgs, Usage};
use crate::publishing::{Publishing, Transport};
use crate::stop::Stop;
use crate::topics::{Messages, Topic, TopicArgs};

use names::GID_BYTES;

/// Where rmw_zenoh's sessions look for a router.
const ROUTER: &str = "tcp/localhost:7447";
/// Where a router of rmw_zenoh listens.
const ROUTER_LISTENS: &str = "tcp/[::]:7447";

/// What Zenoh cannot do.
#[derive(Debug, thiserror::Error)]
pub enum ZenohError {
    /// No session.
    #[error("Zenoh cannot start ({endpoints}): {reason}")]
    Start {
        /// Where it listens or connects to.
        endpoints: String,
        /// Zenoh's own words.
        reason: String,
    },
    /// A topic.
    #[error("Zenoh cannot announce {key}: {reason}")]
    Announce {
        /// The topic's key, or a token.
        key: String,
        /// Zenoh's own words.
        reason: String,
    },
    /// The session is gone.
    #[error("Zenoh has failed while sending {topic}: {reason}")]
    Broken {
        /// The topic's name.
        topic: &'static str,
        /// Zenoh's own words.
        reason: String,
    },
}

/// Masks as a ROS 2 node (Zenoh)
#[derive(Debug, Args)]
pub struct ZenohArgs {
    #[command(flatten)]
    ring: RingArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    topics: TopicArgs,
    /// The router, as tcp/HOST:PORT; may be repeated [default: tcp/localhost:7447; with --router none]
    #[arg(long, value_name = "ENDPOINT", value_parser = endpoint)]
    connect: Vec<String>,
    /// Be the router that rmw_zenoh's nodes look for
    #[arg(long)]
    router: bool,
    /// Where --router listens, as tcp/ADDRESS:PORT; may be repeated [default: tcp/[::]:7447]
    #[arg(long, value_name = "ENDPOINT", requires = "router", value_parser = endpoint)]
    listen: Vec<String>,
}

/// `tcp/HOST:PORT`.
fn endpoint(text: &str) -> Result<String, String> {
    let parts = text.strip_prefix("tcp/").and_then(|address| address.rsplit_once(':'));
    match parts {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("an endpoint is tcp/HOST:PORT, as tcp/192.168.1.5:7447".to_owned()),
    }
}

impl ZenohArgs {
    /// Runs until a signal comes.
    ///
    /// # Errors
    /// [`Usage`] for names and files that are none; [`ZenohError`].
    pub fn run(&self) -> anyhow::Result<()> {
        let node = self.node.node()?;
        let messages = Messages::new(&self.topics)?;
        let stop = Stop::install()?;
        let carrier = Carrier::open(self, &node)?;
        log::info!("node {} in domain {}: {} topics by Zenoh", node.full_name(), node.domain, carrier.writers.len());
        let frames = Publishing::new(&self.ring.socket, &node, messages, self.topics.topics(), carrier).run(&stop)?;
        log::info!("node {} ends after {frames} frames", node.full_name());
        Ok(())
    }

    /// (listens, connects to).
    fn endpoints(&self) -> (Vec<String>, Vec<String>) {
        let or = |given: &[String], default: Option<&str>| match given {
            [] => default.map(str::to_owned).into_iter().collect(),
            given => given.to_vec(),
        };
        (or(&self.listen, self.router.then_some(ROUTER_LISTENS)), or(&self.connect, (!self.router).then_some(ROUTER)))
    }

    /// As rmw_zenoh configures its sessions and its router: peers that gossip, no multicast, connecting for as long as it takes.
    fn config(&self) -> Result<Config, Usage> {
        let mut config = Config::default();
        let (listen, connect) = self.endpoints();
        // a session that is no router is reached through it, or directly by peers that gossip told of it
        let listen = if self.router { listen } else { vec!["tcp/localhost:0".to_owned()] };
        let mode = if self.router { "router" } else { "peer" };
        for (key, value) in [
            ("mode", serde_json::json!(mode)),
            ("listen/endpoints", serde_json::json!(listen)),
            ("connect/endpoints", serde_json::json!(connect)),
            ("connect/timeout_ms", serde_json::json!(-1)),
            ("connect/exit_on_failure", serde_json::json!(false)),
            ("scouting/multicast/enabled", serde_json::json!(false)),
            ("scouting/gossip/enabled", serde_json::json!(true)),
        ] {
            config.insert_json5(key, &value.to_string()).map_err(|error| Usage(format!("Zenoh refuses {key} = {value}: {error}")))?;
        }
        Ok(config)
    }
}

/// One topic's publisher.
struct Writer {
    publisher: Publisher<'static>,
    /// Others list the topic as long as it lives.
    _token: LivelinessToken,
    gid: [u8; GID_BYTES],
    sent: u64,
    is_wanted: bool,
}

/// The session, and what it has announced.
struct Carrier {
    writers: BTreeMap<Topic, Writer>,
    /// Others list the node as long as it lives.
    _node: LivelinessToken,
    session: Session,
}

impl Carrier {
    fn open(args: &ZenohArgs, node: &Node) -> anyhow::Result<Carrier> {
        let (listen, connect) = args.endpoints();
        let endpoints =
            if args.router { format!("listening on {}", listen.join(", ")) } else { format!("connecting to {}", connect.join(", ")) };
        let session = zenoh::open(args.config()?).wait().map_err(|error| ZenohError::Start { endpoints, reason: error.to_string() })?;
        let id = session.zid().to_string();
        let announced = |key: &str, error: zenoh::Error| ZenohError::Announce { key: key.to_owned(), reason: error.to_string() };
        let token = |key: &str| session.liveliness().declare_token(key.to_owned()).wait().map_err(|error| announced(key, error));
        let node_token = token(&names::node_token(node, &id))?;
        let mut writers = BTreeMap::new();
        for (number, topic) in (1..).zip(args.topics.topics()) {
            let key = names::key(node, topic, args.node.distro);
            let publisher = session.declare_publisher(key.clone()).congestion_control(CongestionControl::Drop);
            let publisher = publisher.wait().map_err(|error| announced(&key, error))?;
            let name = names::publisher_token(node, &id, topic, args.node.distro, number);
            let gid = Sha256::digest(&name)[..GID_BYTES].try_into()?;
            writers.insert(topic, Writer { publisher, _token: token(&name)?, gid, sent: 0, is_wanted: false });
        }
        Ok(Carrier { writers, _node: node_token, session })
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // with it go the tokens, so that others strike the node from their lists; an error here has no one to be told
        let _ = self.session.close().wait();
    }
}

impl Transport for Carrier {
    /// What rmw_zenoh keeps for late subscribers travels by queries that plain Zenoh does not answer.
    const LATCHES: bool = false;

    fn write(&mut self, topic: Topic, message: Vec<u8>) -> anyhow::Result<bool> {
        let Some(writer) = self.writers.get_mut(&topic) else { return Ok(true) };
        writer.sent += 1;
        let attachment = names::attachment(writer.sent, realtime_ns(), writer.gid);
        let sent = writer.publisher.put(message).attachment(attachment.as_slice()).wait();
        sent.map_err(|error| ZenohError::Broken { topic: topic.name(), reason: error.to_string() })?;
        Ok(true)
    }

    fn look(&mut self) -> anyhow::Result<bool> {
        for writer in self.writers.values_mut() {
            writer.is_wanted = writer.publisher.matching_status().wait().is_ok_and(|status| status.matching());
        }
        Ok(false)
    }

    fn has_subscriber(&self, topic: Topic) -> bool {
        self.writers.get(&topic).is_some_and(|writer| writer.is_wanted)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ZenohArgs,
    }

    fn endpoints(words: &[&str]) -> Result<(Vec<String>, Vec<String>), clap::Error> {
        Line::try_parse_from([&["zenoh"], words].concat()).map(|line| line.args.endpoints())
    }

    #[test]
    fn a_session_looks_for_the_router_or_is_it() {
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(endpoints(&[]).unwrap(), (list(&[]), list(&[ROUTER])));
        assert_eq!(endpoints(&["--router"]).unwrap(), (list(&[ROUTER_LISTENS]), list(&[])));
        assert_eq!(endpoints(&["--router", "--listen", "tcp/127.0.0.1:7448"]).unwrap(), (list(&["tcp/127.0.0.1:7448"]), list(&[])));
        assert_eq!(endpoints(&["--connect", "tcp/robot:7447"]).unwrap().1, ["tcp/robot:7447"]);
        for wrong in [&["--listen", "tcp/[::]:1"][..], &["--connect", "robot:7447"], &["--connect", "tcp/robot"], &["--connect", "udp/a:1"]]
        {
            endpoints(wrong).unwrap_err();
        }
    }

    #[test]
    fn zenoh_takes_the_configuration() {
        for words in [&["zenoh"][..], &["zenoh", "--router"]] {
            Line::try_parse_from(words).unwrap().args.config().unwrap();
        }
    }
}
