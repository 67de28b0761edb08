#!/usr/bin/env python3
"""Writes crates/ros/tests/data: messages as real ROS 2 serializes them, and the hashes of their types.

Run it with a Python that has the wheels ros-kilted-rclpy, -rmw-fastrtps-cpp, -sensor-msgs, -std-msgs, -diagnostic-msgs, and rosbags; the third
argument is a checkout of vision_msgs, for which there is no wheel: rosbags' own serializer and hashes stand in.

    ros-reference.py OUTPUT_DIR ROS_PREFIX VISION_MSGS

What rclpy leaves between fields is whatever the memory held. So it serializes in several processes whose fresh memory is filled differently
(MALLOC_PERTURB_, mallopt(3)); bytes that differ are padding, and zero in the files.
"""

import json
import os
import pathlib
import pickle
import subprocess
import sys

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.serialization import serialize_message
from rmw_dds_common.msg import Gid, NodeEntitiesInfo, ParticipantEntitiesInfo
from rosbags.typesys import Stores, get_typestore, get_types_from_msg
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

PACKAGES = ["builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "rmw_dds_common", "sensor_msgs", "std_msgs"]
VISION = ["VisionClass", "LabelInfo", "Point2D", "Pose2D", "BoundingBox2D", "ObjectHypothesis", "ObjectHypothesisWithPose", "Detection2D"]
VISION += ["Detection2DArray"]
OURS = VISION + ["Time", "Header", "Image", "CompressedImage", "RegionOfInterest", "CameraInfo", "Point", "Quaternion", "Pose"]
OURS += ["PoseWithCovariance", "KeyValue", "DiagnosticStatus", "DiagnosticArray", "Gid", "NodeEntitiesInfo", "ParticipantEntitiesInfo"]


def header(frame_id="camera"):
    return Header(stamp=Time(sec=1764500000, nanosec=123456789), frame_id=frame_id)


def messages():
    """What the Rust test builds again, value by value."""
    gid = lambda start: Gid(data=list(range(start, start + 16)))
    node = NodeEntitiesInfo(node_namespace="/robot", node_name="eomt_edge", reader_gid_seq=[], writer_gid_seq=[gid(16), gid(32)])
    status = DiagnosticStatus(level=b"\x01", name="eomt_edge: masks", message="no signal", hardware_id="1234")
    status.values = [KeyValue(key="frames", value="7"), KeyValue(key="", value="ü")]
    yield Image(header=header(), height=2, width=3, encoding="mono16", step=6, data=bytes(range(12)))
    yield CompressedImage(header=header("a"), format="mono16; png compressed ", data=bytes(range(7)))
    yield CameraInfo(
        header=header("optical"), height=480, width=640, distortion_model="plumb_bob", d=[0.1, -0.2, 0.0, 0.0, 0.5],
        k=[float(i) for i in range(9)], r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], p=[float(i) / 4 for i in range(12)],
        binning_x=1, binning_y=2, roi=RegionOfInterest(x_offset=1, y_offset=2, height=3, width=4, do_rectify=True))
    yield DiagnosticArray(header=header(""), status=[status, DiagnosticStatus(level=b"\x00")])
    yield ParticipantEntitiesInfo(gid=gid(0), node_entities_info_seq=[node])


def vision(store):
    T = lambda name: store.types[name]
    stamp = T("builtin_interfaces/msg/Time")(1764500000, 123456789)
    head = lambda frame_id: T("std_msgs/msg/Header")(stamp, frame_id)
    V = lambda name: T(f"vision_msgs/msg/{name}")
    classes = [V("VisionClass")(0, "nothing"), V("VisionClass")(1, "é"), V("VisionClass")(65535, "")]
    yield V("LabelInfo")(head("camera"), classes, 0.25)
    G = lambda name: T(f"geometry_msgs/msg/{name}")
    import numpy
    pose = G("PoseWithCovariance")(G("Pose")(G("Point")(0, 0, 0), G("Quaternion")(0, 0, 0, 1)), numpy.arange(36, dtype=numpy.float64))
    result = V("ObjectHypothesisWithPose")(V("ObjectHypothesis")("person", 0.75), pose)
    box = V("BoundingBox2D")(V("Pose2D")(V("Point2D")(10.5, 20.25), 0.5), 21.0, 40.5)
    detections = [V("Detection2D")(head("camera"), [result], box, "17"), V("Detection2D")(head(""), [], box, "")]
    yield V("Detection2DArray")(head("camera"), detections)


def serialized(message):
    """In memory that has held this process's number before."""
    fill = int(os.environ["MALLOC_PERTURB_"])
    for size in range(0, 1200, 4):
        serialize_message(Image(data=bytes([fill]) * size))
    return serialize_message(message)


def main():
    if len(sys.argv) == 2:
        pickle.dump([(type(message).__name__, serialized(message)) for message in messages()], sys.stdout.buffer)
        return
    output, prefix, checkout = (pathlib.Path(argument) for argument in sys.argv[1:4])
    hashes = {}
    for package in PACKAGES:
        for path in (prefix / "share" / package / "msg").glob("*.json"):
            hashes |= {entry["type_name"]: entry["hash_string"] for entry in json.loads(path.read_text())["type_hashes"]}
    store = get_typestore(Stores.ROS2_KILTED)
    for name in VISION:
        store.register(get_types_from_msg((checkout / "vision_msgs" / "msg" / f"{name}.msg").read_text(), f"vision_msgs/msg/{name}"))
    for name in VISION:
        hashes[f"vision_msgs/msg/{name}"] = store.hash_rihs01(f"vision_msgs/msg/{name}")
    # a check of the stand-in: where both know a type of ours they must agree (of rmw_dds_common it has Humble's ids of 24 bytes)
    hashes = {name: value for name, value in hashes.items() if name.split("/")[-1] in OURS}
    for name, value in hashes.items():
        assert name not in store.types or name.startswith("rmw_") or store.hash_rihs01(name) == value, name
    output.mkdir(parents=True, exist_ok=True)
    (output / "hashes.txt").write_text("".join(f"{name} {value}\n" for name, value in sorted(hashes.items())))
    perturbed = lambda value: ([sys.executable, __file__, "serialize"], dict(os.environ, MALLOC_PERTURB_=str(value)))
    runs = [pickle.loads(subprocess.check_output(command, env=env)) for command, env in map(perturbed, (255, 254, 170, 85, 51, 15))]
    for versions in zip(*runs):
        name = versions[0][0]
        (output / f"{name}.cdr").write_bytes(bytes(same[0] if len(set(same)) == 1 else 0 for same in zip(*(data for _, data in versions))))
    for message in vision(store):
        name = message.__msgtype__
        (output / f"{name.split('/')[-1]}.cdr").write_bytes(store.serialize_cdr(message, name))


if __name__ == "__main__":
    main()
