"""The bridge to ROS 2 against real nodes: see ros2-check.sh, which runs it in a network namespace.

What is equal is compared with another reader: pixels and stamps with the Python client of the ring, names with what ROS lists.
"""
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

from checking import BRIDGE, DAEMON, Checks, Program, root, until

import numpy as np
from eomt_edge_client import Ended, Subscriber

venvs = Path(sys.argv[1]).resolve()
LOSSLESS = float(os.environ.get("SECONDS_LOSSLESS", "60"))
PNG = ["/robot/eomt_edge/panoptic/compressed", "/robot/eomt_edge/semantic/compressed"]
OTHERS = ["/robot/eomt_edge/confidence/compressed", "/robot/eomt_edge/overlay/compressed", "/robot/eomt_edge/image/compressed"]
check = Checks()


class Ring(threading.Thread):
    """Every frame of the ring, as the Python client reads it: sequence to what the bridge must say about it."""

    def __init__(self, socket):
        super().__init__(daemon=True)
        self.socket, self.frames, self.labels = socket, {}, []
        # the wall clock minus the ring's clock, which nobody sets in this namespace
        self.offset = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self.start()

    def run(self):
        try:
            with Subscriber(self.socket, timeout=60) as masks:
                self.labels = list(masks.labels)
                for frame in masks:
                    ids = np.array(frame.ids)
                    class_of = np.zeros(65536, np.uint16)
                    for segment in frame.segments:
                        class_of[segment.id] = masks.labels.index(segment.label) + 1
                    rows = [[s.label, float(np.float32(s.score)), s.bbox[0] + s.bbox[2] / 2, s.bbox[1] + s.bbox[3] / 2, float(s.bbox[2]),
                             float(s.bbox[3]), str(s.track_id) if s.track_id else ""] for s in frame.segments]
                    crcs = [zlib.crc32(ids.astype("<u2").tobytes()), zlib.crc32(class_of[ids].astype("<u2").tobytes())]
                    self.frames[frame.sequence] = (frame.captured_ns + self.offset, crcs, rows)
        except Ended:
            pass

    def at(self, stamp):
        """The sequence of the frame with this stamp: the nearest, frames are 66 ms apart."""
        frames = dict(self.frames)
        nearest = min(frames, key=lambda sequence: abs(frames[sequence][0] - stamp), default=None)
        return nearest if nearest is not None and abs(frames[nearest][0] - stamp) < 10_000_000 else None


def daemon(directory, name, source):
    keys = [f"ring.socket={directory}/masks.sock", "ring.include_frame=true", "source.fps=15"]
    command = [DAEMON, "run", "--source", source, "--model", str(root / "models/eomt-nano-scenes.onnx")]
    return Program(directory, name, command + [word for key in keys for word in ("--set", key)])


def bridge(directory, name="bridge"):
    options = ["--socket", f"{directory}/masks.sock", "--namespace", "/robot", "--frame-id", "lens", "--camera", "--confidence"]
    return Program(directory, name, [BRIDGE, "-v", "ros2", *options])


class Peer(Program):
    def __init__(self, directory, distro, name, *arguments):
        super().__init__(directory, name, [venvs / distro / "bin/python", root / "scripts/ros2_peer.py", *arguments])

    def lines(self):
        return [json.loads(line) for line in self.words().splitlines() if line.startswith("{") and line.endswith("}")]

    def pictures(self, topic):
        return [line for line in self.lines() if line.get("topic") == topic]

    def health(self):
        return [line for line in self.lines() if "health" in line]

    def last(self, key):
        return next((line[key] for line in reversed(self.lines()) if key in line), None)


def names(peer, distro):
    types = dict(map(tuple, [[name, kinds[0]] for name, kinds in peer.last("topics")]))
    node = "/robot/eomt_edge"
    expected = {f"{node}/{topic}/compressed": "sensor_msgs/msg/CompressedImage" for topic in ("panoptic", "semantic", "confidence", "overlay", "image")}
    expected |= {f"{node}/label_info": "vision_msgs/msg/LabelInfo", f"{node}/detections": "vision_msgs/msg/Detection2DArray"}
    expected |= {"/diagnostics": "diagnostic_msgs/msg/DiagnosticArray"}
    ours = {name: kind for name, kind in types.items() if name.startswith(node) or name == "/diagnostics"}
    check(f"{distro} lists the topics with their types", ours == expected, ours if ours != expected else "")


def equal(ring, peer, distro):
    """Pixels, stamps, forms of the pictures that came, against the ring."""
    for which, topic in enumerate(PNG):
        pictures = peer.pictures(topic)
        known = [(picture, ring.at(picture["stamp"])) for picture in pictures]
        wrong = [picture for picture, sequence in known if sequence and ring.frames[sequence][1][which] != picture["crc"]]
        compared = sum(1 for _, sequence in known if sequence)
        check(f"{distro} {topic}: pixels as in the ring", compared > 100 and not wrong, f"{compared} compared, {len(wrong)} differ")
        forms = {(p["format"], p["mode"], tuple(p["size"]), p["frame_id"]) for p in pictures}
        check(f"{distro} {topic}: form", forms == {("mono16; png compressed ", "I;16", (320, 240), "lens")}, forms)
    others = {p["stamp"] for topic in OTHERS for p in peer.pictures(topic)}
    # topics come one after the other
    masks = until(lambda: (found := {p["stamp"] for p in peer.pictures(PNG[0])}) and max(found) >= max(others) and found)
    strangers = {stamp for stamp in others if min(masks) <= stamp <= max(masks)} - masks
    check(f"{distro}: overlay and camera frame have the stamps of the masks", not strangers, f"{len(others)} compared, {len(strangers)} differ")
    check(f"{distro}: overlay is JPEG", {p["format"] for p in peer.pictures(OTHERS[1])} == {"rgb8; jpeg compressed bgr8"})


def lossless(ring, peers):
    """For a while every frame that the bridge took from the ring must reach both distributions on both topics."""
    skipped = lambda peer: int(peer.health()[-1]["values"]["bridge_skipped"])
    start, before = max(ring.frames), skipped(peers["kilted"])
    time.sleep(LOSSLESS)
    end = max(ring.frames)
    until(lambda: all(peer.pictures(topic) and (ring.at(peer.pictures(topic)[-1]["stamp"]) or 0) > end for peer in peers.values() for topic in PNG))
    time.sleep(2)  # the next report of what the bridge skipped
    count = skipped(peers["kilted"]) - before
    wanted = {sequence for sequence in ring.frames if start < sequence <= end}
    for distro, peer in peers.items():
        for topic in PNG:
            came = {ring.at(picture["stamp"]) for picture in peer.pictures(topic)}
            lost = wanted - came
            check(f"{distro} {topic}: no loss in {LOSSLESS:.0f} s", len(lost) <= count and len(wanted) > 100,
                  f"{len(wanted)} frames, {len(lost)} missing, {count} of which the bridge was too slow for")


def vision(directory, ring):
    """Somebody who comes late gets the labels, and detections as the ring has them."""
    command = [venvs / "kilted/bin/python", root / "scripts/ros2_vision_peer.py", "rt/robot/eomt_edge/label_info", "rt/robot/eomt_edge/detections", "600"]
    peer = Program(directory, "vision", command)
    lines = lambda: [json.loads(line) for line in peer.words().splitlines() if line.startswith("{") and line.endswith("}")]
    until(lambda: len([line for line in lines() if "detections" in line]) > 50, 120)
    peer.end(signal.SIGKILL)
    labels = [line for line in lines() if "labels" in line]
    expected = [[0, "nothing"]] + [[number + 1, label] for number, label in enumerate(ring.labels)]
    check("a late subscriber gets the labels", labels and labels[0]["labels"] == expected, labels[:1])
    known = [(line, ring.at(line["stamp"])) for line in lines() if "detections" in line]
    wrong = [line for line, sequence in known if sequence and ring.frames[sequence][2] != line["detections"]]
    compared = sum(1 for _, sequence in known if sequence)
    check("detections as in the ring's table", compared > 30 and not wrong, (f"{compared} compared", wrong[:1]))


def stopped_reader(directory, peers):
    """A subscriber that freezes holds up nobody."""
    frozen, other = peers["jazzy"], peers["kilted"]
    frozen.process.send_signal(signal.SIGSTOP)
    before = len(other.pictures(PNG[0]))
    came = until(lambda: len(other.pictures(PNG[0])) > before + 15 * 25, 300)
    frozen.process.send_signal(signal.SIGCONT)
    check("with a frozen subscriber for longer than its lease, the other one gets on", came, f"{len(other.pictures(PNG[0])) - before} frames")
    ended = len(frozen.pictures(PNG[0]))
    check("the frozen one goes on afterwards", until(lambda: len(frozen.pictures(PNG[0])) > ended + 15, 120))


def restarts(directory, running, peers):
    """Daemon, peer and bridge end and come back in turn."""
    kilted = peers["kilted"]
    running.end(signal.SIGKILL)
    check("a daemon that is away is told", until(lambda: kilted.health()[-1]["message"].startswith("no daemon at"), 30), kilted.health()[-1]["message"])
    os.mkfifo(f"{directory}/silent")
    silent = daemon(directory, "silent", f"pipe:{directory}/silent")
    check("no signal is told", until(lambda: kilted.health()[-1]["message"].startswith("no signal"), 60), kilted.health()[-1]["message"])
    silent.end(signal.SIGKILL)
    again = daemon(directory, "again", "scenes")
    before = len(kilted.pictures(PNG[0]))
    check("a new daemon's masks come to the old subscriber", until(lambda: len(kilted.pictures(PNG[0])) > before + 30, 120))
    peers["jazzy"].end(signal.SIGKILL)
    peers["jazzy"] = Peer(directory, "jazzy", "jazzy2", "watch", *PNG)
    check("a new subscriber after one that was killed", until(lambda: len(peers["jazzy"].pictures(PNG[1])) > 15, 120))
    return again


def farewell(directory, first, peers):
    """The node is listed, then not."""
    ours = ["eomt_edge", "/robot"]
    for distro, peer in peers.items():
        check(f"{distro} lists the node", ours in peer.last("nodes"), peer.last("nodes"))
    code = first.end()
    check("the bridge ends well on SIGTERM", code == 0, code)
    for distro, peer in peers.items():
        # its lease would end after most of a minute
        check(f"{distro}: the node is gone at once", until(lambda: ours not in peer.last("nodes"), 10), peer.last("nodes"))
    second = bridge(directory, "bridge2")
    before = {distro: len(peer.pictures(PNG[0])) for distro, peer in peers.items()}
    for distro, peer in peers.items():
        check(f"{distro}: a new bridge's masks come to the old subscriber", until(lambda: len(peer.pictures(PNG[0])) > before[distro] + 15, 120))
    return second


def incoming(directory):
    """What rclpy publishes arrives byte by byte."""
    publisher = Peer(directory, "kilted", "publisher", "publish", "/camera/image_raw", "/camera/image_raw/compressed")
    for topic, is_file in (("/camera/image_raw", 0), ("/camera/image_raw/compressed", 1)):
        reader = subprocess.Popen([BRIDGE, "images", topic], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        good, count = True, 0
        while good and count < 10:
            header = reader.stdout.read(112)
            magic, version, flags, width, height, step, _, size, stamp, encoding = struct.unpack("<8sIIIIIIQQ64s", header)
            data, number = reader.stdout.read(size), stamp % 10**9
            values = np.random.default_rng(number).integers(0, 256, 90 * 120 * 3, np.uint8).tobytes()
            form = (b"bgr8; jpeg compressed bgr8", 0, 0, 0, values[:20001]) if is_file else (b"bgr8", 120, 90, 360, values)
            good = (magic, version, flags) == (b"EOMTFRAM", 1, is_file) and stamp // 10**9 == 1700000000 + number
            good = good and (encoding.rstrip(b"\0"), width, height, step, data) == form
            count += 1
        check(f"images {topic}: bytes and stamps as published", good, f"{count} pictures")
        if is_file:
            reader.stdout.close()
            check(f"images {topic}: ends when nobody reads any more", reader.wait(20) == 0)
        else:
            reader.terminate()
            check(f"images {topic}: ends well on SIGTERM", reader.wait(20) == 0)
    publisher.end(signal.SIGKILL)


def main():
    with tempfile.TemporaryDirectory() as directory:
        running = daemon(directory, "daemon", "scenes")
        until(lambda: os.path.exists(f"{directory}/masks.sock"), 60)
        first = bridge(directory)
        ring = Ring(f"{directory}/masks.sock")
        peers = {distro: Peer(directory, distro, distro, "watch", *PNG, *OTHERS) for distro in ("kilted", "jazzy")}
        ready = until(lambda: all(len(peer.pictures(topic)) > 15 for peer in peers.values() for topic in PNG + OTHERS) and
                      all(peer.health() for peer in peers.values()), 120)
        counts = {distro: {topic: len(peer.pictures(topic)) for topic in PNG + OTHERS} for distro, peer in peers.items()}
        check("both distributions get all topics", ready, "" if ready else [counts, [p.words()[-2000:] for p in (first, running, *peers.values())]])
        if not ready:
            check.end()
        lossless(ring, peers)
        for distro, peer in peers.items():
            names(peer, distro)
            equal(ring, peer, distro)
        vision(directory, ring)
        stopped_reader(directory, peers)
        running = restarts(directory, running, peers)
        second = farewell(directory, first, peers)
        for program in (second, running, *peers.values()):
            program.end(signal.SIGKILL)
        incoming(directory)
        check.end()


main()
