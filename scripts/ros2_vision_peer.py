"""A late subscriber to vision_msgs for ros2_check.py: Cyclone DDS with its own description of the types, as no wheel of vision_msgs exists.

    ros2_vision_peer.py LABELS_TOPIC DETECTIONS_TOPIC SECONDS     names as DDS has them: rt/...
"""
import json
import sys
import time
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final
from cyclonedds.idl.types import array, float32, float64, int32, sequence, uint16, uint32
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration


def dds(package, name):
    return f"{package}::msg::dds_::{name}_"


@dataclass
@final
class Time(IdlStruct, typename=dds("builtin_interfaces", "Time")):
    sec: int32
    nanosec: uint32


@dataclass
@final
class Header(IdlStruct, typename=dds("std_msgs", "Header")):
    stamp: Time
    frame_id: str


@dataclass
@final
class VisionClass(IdlStruct, typename=dds("vision_msgs", "VisionClass")):
    class_id: uint16
    class_name: str


@dataclass
@final
class LabelInfo(IdlStruct, typename=dds("vision_msgs", "LabelInfo")):
    header: Header
    class_map: sequence[VisionClass]
    threshold: float32


@dataclass
@final
class Point(IdlStruct, typename=dds("geometry_msgs", "Point")):
    x: float64
    y: float64
    z: float64


@dataclass
@final
class Quaternion(IdlStruct, typename=dds("geometry_msgs", "Quaternion")):
    x: float64
    y: float64
    z: float64
    w: float64


@dataclass
@final
class Pose(IdlStruct, typename=dds("geometry_msgs", "Pose")):
    position: Point
    orientation: Quaternion


@dataclass
@final
class PoseWithCovariance(IdlStruct, typename=dds("geometry_msgs", "PoseWithCovariance")):
    pose: Pose
    covariance: array[float64, 36]


@dataclass
@final
class ObjectHypothesis(IdlStruct, typename=dds("vision_msgs", "ObjectHypothesis")):
    class_id: str
    score: float64


@dataclass
@final
class ObjectHypothesisWithPose(IdlStruct, typename=dds("vision_msgs", "ObjectHypothesisWithPose")):
    hypothesis: ObjectHypothesis
    pose: PoseWithCovariance


@dataclass
@final
class Point2D(IdlStruct, typename=dds("vision_msgs", "Point2D")):
    x: float64
    y: float64


@dataclass
@final
class Pose2D(IdlStruct, typename=dds("vision_msgs", "Pose2D")):
    position: Point2D
    theta: float64


@dataclass
@final
class BoundingBox2D(IdlStruct, typename=dds("vision_msgs", "BoundingBox2D")):
    center: Pose2D
    size_x: float64
    size_y: float64


@dataclass
@final
class Detection2D(IdlStruct, typename=dds("vision_msgs", "Detection2D")):
    header: Header
    results: sequence[ObjectHypothesisWithPose]
    bbox: BoundingBox2D
    id: str


@dataclass
@final
class Detection2DArray(IdlStruct, typename=dds("vision_msgs", "Detection2DArray")):
    header: Header
    detections: sequence[Detection2D]


def main():
    labels_topic, detections_topic, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    participant = DomainParticipant()
    reliable = Policy.Reliability.Reliable(duration(milliseconds=100))
    labels = DataReader(participant, Topic(participant, labels_topic, LabelInfo), Qos(reliable, Policy.Durability.TransientLocal))
    found = DataReader(participant, Topic(participant, detections_topic, Detection2DArray), Qos(reliable, Policy.History.KeepLast(50)))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for info in labels.take(10):
            print(json.dumps({"labels": [[one.class_id, one.class_name] for one in info.class_map], "frame_id": info.header.frame_id}), flush=True)
        for message in found.take(50):
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            rows = [
                [one.results[0].hypothesis.class_id, one.results[0].hypothesis.score, one.bbox.center.position.x, one.bbox.center.position.y,
                 one.bbox.size_x, one.bbox.size_y, one.id]
                for one in message.detections
            ]
            print(json.dumps({"stamp": stamp, "detections": rows}), flush=True)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
