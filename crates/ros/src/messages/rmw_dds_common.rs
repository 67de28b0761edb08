//! rmw_dds_common: which endpoints belong to which node. DDS itself knows no nodes; every ROS 2 process tells this on `ros_discovery_info`.

use crate::Base;
use crate::message::message;

/// The most bytes of a node's name or namespace.
pub const NAME_BYTES_MAX: u32 = 256;

message! {
    /// The id of a participant or an endpoint: prefix and entity.
    Gid = "rmw_dds_common/msg/Gid" {
        /// All of it.
        data: [u8; 16],
    }

    /// A node's endpoints.
    NodeEntitiesInfo = "rmw_dds_common/msg/NodeEntitiesInfo" {
        /// `/` or `/robot`.
        node_namespace: String [Base::BoundedString(NAME_BYTES_MAX)],
        /// Without its namespace.
        node_name: String [Base::BoundedString(NAME_BYTES_MAX)],
        /// What it reads with.
        reader_gid_seq: Vec<Gid>,
        /// What it writes with.
        writer_gid_seq: Vec<Gid>,
    }

    /// A process's nodes.
    ParticipantEntitiesInfo = "rmw_dds_common/msg/ParticipantEntitiesInfo" {
        /// The participant.
        gid: Gid,
        /// Its nodes.
        node_entities_info_seq: Vec<NodeEntitiesInfo>,
    }
}

/// The same for ROS 2 Humble, where ids have 24 bytes, the last 8 zero.
pub mod humble {
    use super::NAME_BYTES_MAX;
    use crate::Base;
    use crate::message::message;

    message! {
        /// The id of a participant or an endpoint, and zeros.
        Gid = "rmw_dds_common/msg/Gid" {
            /// All of it.
            data: [u8; 24],
        }

        /// A node's endpoints.
        NodeEntitiesInfo = "rmw_dds_common/msg/NodeEntitiesInfo" {
            /// `/` or `/robot`.
            node_namespace: String [Base::BoundedString(NAME_BYTES_MAX)],
            /// Without its namespace.
            node_name: String [Base::BoundedString(NAME_BYTES_MAX)],
            /// What it reads with.
            reader_gid_seq: Vec<Gid>,
            /// What it writes with.
            writer_gid_seq: Vec<Gid>,
        }

        /// A process's nodes.
        ParticipantEntitiesInfo = "rmw_dds_common/msg/ParticipantEntitiesInfo" {
            /// The participant.
            gid: Gid,
            /// Its nodes.
            node_entities_info_seq: Vec<NodeEntitiesInfo>,
        }
    }

    impl From<&super::Gid> for Gid {
        fn from(gid: &super::Gid) -> Gid {
            let mut data = [0; 24];
            data[..16].copy_from_slice(&gid.data);
            Gid { data }
        }
    }

    impl From<&super::ParticipantEntitiesInfo> for ParticipantEntitiesInfo {
        fn from(info: &super::ParticipantEntitiesInfo) -> ParticipantEntitiesInfo {
            let gids = |gids: &[super::Gid]| gids.iter().map(Gid::from).collect();
            let node = |node: &super::NodeEntitiesInfo| NodeEntitiesInfo {
                node_namespace: node.node_namespace.clone(),
                node_name: node.node_name.clone(),
                reader_gid_seq: gids(&node.reader_gid_seq),
                writer_gid_seq: gids(&node.writer_gid_seq),
            };
            ParticipantEntitiesInfo {
                gid: Gid::from(&info.gid),
                node_entities_info_seq: info.node_entities_info_seq.iter().map(node).collect(),
            }
        }
    }
}
