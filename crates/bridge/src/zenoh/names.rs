//! What rmw_zenoh calls things: keys of topics, liveliness tokens from which other nodes make their list of nodes and topics, the attachment of each
//! message. (ros2/rmw_zenoh, docs/design.md, and tokens as rmw_zenoh_cpp and hiroz write them.)
//!
//! Invariants: pure; a name holds no character that Zenoh gives a meaning. Refuses: services, enclaves.

use eomt_edge_ros::{Definition, dds_name, type_hash};

use crate::node::{Distro, Node};
use crate::topics::Topic;

/// Bytes of an attachment: sequence number, time, length of the id, id.
pub const ATTACHMENT_BYTES: usize = 8 + 8 + 1 + GID_BYTES;
/// Bytes of a publisher's id.
pub const GID_BYTES: usize = 16;
/// The node's number among those of its session.
const NODE_ID: u32 = 0;

/// The type's hash as it stands in keys. Humble knows none.
fn hash(definition: &Definition, distro: Distro) -> String {
    if distro == Distro::Humble { "TypeHashNotSupported".to_owned() } else { type_hash(definition) }
}

/// A slash would begin another part of a key.
fn mangled(name: &str) -> String {
    name.replace('/', "%")
}

/// `0/eomt_edge/panoptic/compressed/sensor_msgs::msg::dds_::CompressedImage_/RIHS01_…`
pub fn key(node: &Node, topic: Topic, distro: Distro) -> String {
    let (definition, name) = (topic.definition(), node.topic(topic));
    format!("{}/{}/{}/{}", node.domain, name.trim_matches('/'), dds_name(definition), hash(definition, distro))
}

/// `@ros2_lv/0/ZID/0/0/NN/%/%/eomt_edge`
pub fn node_token(node: &Node, session: &str) -> String {
    let Node { name, namespace, domain } = node;
    format!("@ros2_lv/{domain}/{session}/{NODE_ID}/{NODE_ID}/NN/%/{}/{name}", mangled(namespace))
}

/// `@ros2_lv/0/ZID/0/10/MP/%/%/eomt_edge/%eomt_edge%label_info/vision_msgs::msg::dds_::LabelInfo_/RIHS01_…/:1:,1:,:,:,,`
pub fn publisher_token(node: &Node, session: &str, topic: Topic, distro: Distro, id: u32) -> String {
    let Node { name, namespace, domain } = node;
    let (definition, namespace) = (topic.definition(), mangled(namespace));
    let (topic_name, kind, hash) = (mangled(&node.topic(topic)), dds_name(definition), hash(definition, distro));
    let quality = quality(topic.is_latched());
    format!("@ros2_lv/{domain}/{session}/{NODE_ID}/{id}/MP/%/{namespace}/{name}/{topic_name}/{kind}/{hash}/{quality}")
}

/// Reliability, durability, history and depth, deadline, lifespan, liveliness; defaults (reliable, volatile, keep last) are left out.
fn quality(latched: bool) -> &'static str {
    if latched { ":1:,1:,:,:,," } else { "::,5:,:,:,," }
}

/// What goes with each message; `sequence` counts a publisher's from 1.
pub fn attachment(sequence: u64, stamp_ns: u64, gid: [u8; GID_BYTES]) -> [u8; ATTACHMENT_BYTES] {
    let mut bytes = [0; ATTACHMENT_BYTES];
    bytes[..8].copy_from_slice(&sequence.to_le_bytes());
    bytes[8..16].copy_from_slice(&stamp_ns.to_le_bytes());
    bytes[16] = GID_BYTES as u8;
    bytes[17..].copy_from_slice(&gid);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(namespace: &str) -> Node {
        Node { name: "eomt_edge".into(), namespace: namespace.into(), domain: 7 }
    }

    // The hash of CompressedImage as the type descriptions of ROS 2 Kilted have it (sensor_msgs/msg/CompressedImage.json).
    const COMPRESSED: &str =
        "sensor_msgs::msg::dds_::CompressedImage_/RIHS01_15640771531571185e2efc8a100baf923961a4d15d5569652e6cb6691e8e371a";

    #[test]
    fn keys_and_tokens_as_rmw_zenoh_writes_them() {
        assert_eq!(key(&node("/"), Topic::Panoptic, Distro::Jazzy), format!("7/eomt_edge/panoptic/compressed/{COMPRESSED}"));
        assert_eq!(
            key(&node("/r/front"), Topic::Panoptic, Distro::Kilted),
            format!("7/r/front/eomt_edge/panoptic/compressed/{COMPRESSED}")
        );
        assert!(
            key(&node("/"), Topic::Diagnostics, Distro::Humble)
                .ends_with("7/diagnostics/diagnostic_msgs::msg::dds_::DiagnosticArray_/TypeHashNotSupported")
        );
        assert_eq!(node_token(&node("/"), "ab12"), "@ros2_lv/7/ab12/0/0/NN/%/%/eomt_edge");
        assert_eq!(node_token(&node("/r/front"), "ab12"), "@ros2_lv/7/ab12/0/0/NN/%/%r%front/eomt_edge");
        assert_eq!(
            publisher_token(&node("/r"), "ab12", Topic::Panoptic, Distro::Jazzy, 3),
            format!("@ros2_lv/7/ab12/0/3/MP/%/%r/eomt_edge/%r%eomt_edge%panoptic%compressed/{COMPRESSED}/::,5:,:,:,,")
        );
        assert!(publisher_token(&node("/"), "ab12", Topic::LabelInfo, Distro::Jazzy, 3).ends_with("/:1:,1:,:,:,,"));
    }

    #[test]
    fn attachments_have_33_bytes() {
        let bytes = attachment(0x0102, 0x0a0b_0c0d, [9; 16]);
        assert_eq!(bytes.len(), 33);
        assert_eq!(bytes[..17], [2, 1, 0, 0, 0, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 0, 0, 0, 0, 16]);
        assert_eq!(bytes[17..], [9; 16]);
    }
}
