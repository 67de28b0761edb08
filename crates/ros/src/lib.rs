//! ROS 2 messages as bytes.
