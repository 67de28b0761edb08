//! The ROS node that a bridge is: its name, its namespace, its topics' names, the distribution that it talks to.
//!
//! Invariants: a name that was accepted is one that every ROS 2 node accepts (design.ros2.org, "Topic and Service names"). Refuses: hidden
//! defaults; `~` and `{node}` are written out.

use clap::{Args, ValueEnum};

use crate::options::Usage;
use crate::topics::Topic;

/// The most characters of a topic's whole name that middlewares take.
const NAME_MAX: usize = 245;
/// Beyond it the port numbers of DDS end.
const DOMAIN_MAX: u16 = 232;

/// What subcommands that are a node take.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// The node's name
    #[arg(long, value_name = "NAME", default_value = "eomt_edge")]
    pub node: String,
    /// The node's namespace
    #[arg(long, value_name = "NAME", default_value = "/")]
    pub namespace: String,
    /// ROS_DOMAIN_ID [default: that variable, else 0]
    #[arg(long, value_name = "0-232")]
    pub domain: Option<u16>,
    /// The distribution of the other nodes
    #[arg(long, value_enum, default_value_t = Distro::Jazzy)]
    pub distro: Distro,
}

/// Distributions that can be told apart on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Distro {
    /// Ids of 24 bytes, no type hashes
    Humble,
    /// The same as later ones
    Jazzy,
    /// The same as later ones
    Kilted,
    /// The same as later ones
    Lyrical,
}

/// A node whose name is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Without its namespace.
    pub name: String,
    /// `/` or `/robot`.
    pub namespace: String,
    /// 0 to 232.
    pub domain: u16,
}

impl NodeArgs {
    /// Checks the names and takes the domain from the environment where none is given.
    ///
    /// # Errors
    /// [`Usage`].
    pub fn node(&self) -> Result<Node, Usage> {
        self.node_with(std::env::var("ROS_DOMAIN_ID").ok().filter(|text| !text.is_empty()).as_deref())
    }

    fn node_with(&self, environment: Option<&str>) -> Result<Node, Usage> {
        if !is_token(&self.node) {
            return Err(Usage(format!("--node {}: letters, digits and _, not beginning with a digit", self.node)));
        }
        let namespace = format!("/{}", self.namespace.trim_start_matches('/'));
        if namespace != "/" && !namespace[1..].split('/').all(is_token) {
            return Err(Usage(format!("--namespace {}: parts of letters, digits and _, separated by /", self.namespace)));
        }
        let domain = match (self.domain, environment) {
            (Some(domain), _) => domain,
            (None, Some(text)) => {
                text.trim().parse().map_err(|_| Usage(format!("ROS_DOMAIN_ID={text}: a number from 0 to {DOMAIN_MAX}")))?
            }
            (None, None) => 0,
        };
        if domain > DOMAIN_MAX {
            return Err(Usage(format!("domain {domain}: DDS has ports for 0 to {DOMAIN_MAX}")));
        }
        let node = Node { name: self.node.clone(), namespace, domain };
        match Topic::ALL.map(|topic| node.topic(topic)).iter().find(|name| name.len() > NAME_MAX) {
            Some(name) => Err(Usage(format!("{name}: a topic has at most {NAME_MAX} characters; take a shorter --namespace or --node"))),
            None => Ok(node),
        }
    }
}

impl Node {
    /// `/robot/eomt_edge`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace.trim_end_matches('/'), self.name)
    }

    /// A topic's name from the root: `/robot/eomt_edge/panoptic/compressed`.
    pub fn topic(&self, topic: Topic) -> String {
        match topic.name() {
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            relative => format!("{}/{relative}", self.full_name()),
        }
    }
}

/// A topic of another node, from the root: `/camera/image_raw`.
///
/// # Errors
/// [`Usage`].
pub fn absolute_topic(name: &str) -> Result<String, Usage> {
    let absolute = format!("/{}", name.trim_start_matches('/'));
    if absolute.len() > NAME_MAX || !absolute[1..].split('/').all(is_token) {
        return Err(Usage(format!("{name}: a topic is parts of letters, digits and _, separated by /, such as /camera/image_raw")));
    }
    Ok(absolute)
}

/// A part of a name.
fn is_token(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        // rcl refuses two in a row
        && !text.contains("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(node: &str, namespace: &str, domain: Option<u16>) -> NodeArgs {
        NodeArgs { node: node.into(), namespace: namespace.into(), domain, distro: Distro::Jazzy }
    }

    #[test]
    fn names_from_the_root() {
        let topic = |namespace: &str, topic: Topic| args("eomt_edge", namespace, None).node_with(None).unwrap().topic(topic);
        assert_eq!(topic("/", Topic::Panoptic), "/eomt_edge/panoptic/compressed");
        assert_eq!(topic("", Topic::LabelInfo), "/eomt_edge/label_info");
        assert_eq!(topic("robot/front", Topic::CameraInfo), "/robot/front/eomt_edge/camera_info");
        assert_eq!(topic("/robot", Topic::Diagnostics), "/diagnostics");
        assert_eq!(absolute_topic("camera/image_raw").unwrap(), "/camera/image_raw");
    }

    #[test]
    fn wrong_names_are_refused_by_name() {
        for (node, namespace) in
            [("9a", "/"), ("", "/"), ("a-b", "/"), ("ü", "/"), ("a__b", "/"), ("a", "/x/"), ("a", "//x//y"), ("a", "/x y")]
        {
            let error = args(node, namespace, None).node_with(None).unwrap_err().to_string();
            assert!(error.starts_with("--node ") || error.starts_with("--namespace "), "{error}");
        }
        assert!(args("a", &"/long".repeat(60), None).node_with(None).unwrap_err().to_string().contains("at most 245"));
        for name in ["", "/", "a//b", "a/", "~/x", "a b"] {
            assert!(absolute_topic(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_domain_is_the_option_s_or_the_environment_s() {
        let domain = |option, environment| args("a", "/", option).node_with(environment).map(|node| node.domain).ok();
        assert_eq!(domain(None, None), Some(0));
        assert_eq!(domain(None, Some("42")), Some(42));
        assert_eq!(domain(Some(7), Some("42")), Some(7));
        assert_eq!(domain(None, Some("x")), None);
        assert_eq!(domain(Some(233), None), None);
    }
}
