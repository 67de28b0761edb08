"""A real ROS 2 node (rclpy) for ros2_check.py, in the Python of one distribution. Writes what it sees as lines of JSON to standard output.

    ros2_peer.py watch TOPIC ...       CompressedImage topics, /diagnostics, and the lists of nodes and topics as ROS tools show them
    ros2_peer.py publish RAW FILE      pictures with numbers in them, five a second, until it is ended
"""
import io
import json
import signal
import sys
import time
import zlib

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from PIL import Image as Picture
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image


def say(**words):
    print(json.dumps(words), flush=True)


def stamp(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def watch(node, topics):
    def picture(topic, message):
        decoded = Picture.open(io.BytesIO(bytes(message.data)))
        kind = {"L": np.uint8, "I;16": "<u2"}.get(decoded.mode)
        crc = zlib.crc32(np.asarray(decoded).astype(kind).tobytes()) if kind else 0
        say(topic=topic, stamp=stamp(message), frame_id=message.header.frame_id, format=message.format, mode=decoded.mode, size=decoded.size, crc=crc)

    def health(message):
        for status in message.status:
            say(health=status.name, level=ord(status.level), message=status.message, values={v.key: v.value for v in status.values})

    reliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
    for topic in topics:
        node.create_subscription(CompressedImage, topic, lambda message, topic=topic: picture(topic, message), reliable)
    node.create_subscription(DiagnosticArray, "/diagnostics", health, 10)
    known = None

    def lists():
        nonlocal known
        seen = [sorted(node.get_node_names_and_namespaces()), sorted(node.get_topic_names_and_types())]
        if seen != known:
            known = seen
            say(nodes=seen[0], topics=seen[1])

    node.create_timer(0.2, lists)


def publish(node, raw_topic, file_topic):
    raw, file = node.create_publisher(Image, raw_topic, 10), node.create_publisher(CompressedImage, file_topic, 10)
    count = 0

    def tick():
        nonlocal count
        count += 1
        values = np.random.default_rng(count).integers(0, 256, 90 * 120 * 3, np.uint8).tobytes()
        message = Image(height=90, width=120, encoding="bgr8", step=360, data=values)
        message.header.stamp.sec, message.header.stamp.nanosec = 1700000000 + count, count
        raw.publish(message)
        packed = CompressedImage(format="bgr8; jpeg compressed bgr8", data=values[:20001])
        packed.header.stamp.sec, packed.header.stamp.nanosec = 1700000000 + count, count
        file.publish(packed)

    node.create_timer(0.2, tick)


def main():
    rclpy.init()
    node = rclpy.create_node(f"peer_{sys.argv[1]}_{int(time.time() * 1000) % 10**6}")
    signal.signal(signal.SIGTERM, lambda *_: rclpy.try_shutdown())
    watch(node, sys.argv[2:]) if sys.argv[1] == "watch" else publish(node, *sys.argv[2:])
    try:
        rclpy.spin(node)
    except ExternalShutdownException:
        pass


if __name__ == "__main__":
    main()
