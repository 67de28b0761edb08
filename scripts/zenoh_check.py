"""The bridge to Zenoh against a session that is configured as rmw_zenoh's are: see zenoh-check.sh.

The peer is Zenoh's own Python package; pixels are compared with what the Python client of the ring reads, hashes with those of ROS 2's own packages
(crates/ros/tests/data/hashes.txt), which scripts/ros-reference.py has read from them.
"""
import io
import json
import signal
import struct
import tempfile
import threading
import time
import zlib
from pathlib import Path

from checking import BRIDGE, Checks, Program, real_daemon, root, until

import numpy as np
import zenoh
from eomt_edge_client import Subscriber
from PIL import Image

HASHES = dict(line.split() for line in (root / "crates/ros/tests/data/hashes.txt").read_text().splitlines() if line.strip() and not line.startswith("#"))
COMPRESSED = f"sensor_msgs::msg::dds_::CompressedImage_/{HASHES['sensor_msgs/msg/CompressedImage']}"
PANOPTIC = f"0/eomt_edge/panoptic/compressed/{COMPRESSED}"
OVERLAY = f"0/eomt_edge/overlay/compressed/{COMPRESSED}"
LABELS = f"0/eomt_edge/label_info/vision_msgs::msg::dds_::LabelInfo_/{HASHES['vision_msgs/msg/LabelInfo']}"
check = Checks()


def session():
    """As rmw_zenoh's DEFAULT_RMW_ZENOH_SESSION_CONFIG: a peer that knows a router on this machine, and no multicast."""
    config = zenoh.Config()
    for key, value in {"mode": "peer", "connect/endpoints": ["tcp/localhost:7447"], "listen/endpoints": ["tcp/localhost:0"],
                       "scouting/multicast/enabled": False, "connect/exit_on_failure": False, "connect/timeout_ms": -1}.items():
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


def compressed(payload):
    """(stamp, frame_id, format, data) of a CompressedImage in little-endian CDR."""
    assert payload[:2] == b"\0\1", payload[:4]
    body, at = payload[4:], 8
    sec, nanosec = struct.unpack_from("<iI", body)
    texts = []
    for _ in range(2):
        at = (at + 3) // 4 * 4
        length, = struct.unpack_from("<I", body, at)
        texts.append(body[at + 4:at + 3 + length].decode())
        at += 4 + length
    at = (at + 3) // 4 * 4
    length, = struct.unpack_from("<I", body, at)
    return sec * 10**9 + nanosec, *texts, body[at + 4:at + 4 + length]


class Heard:
    """What came on a key."""

    def __init__(self, peer, key):
        self.samples = []
        self.subscriber = peer.declare_subscriber(key, lambda s: self.samples.append((s.payload.to_bytes(), s.attachment and s.attachment.to_bytes())))


def ring_ids(socket, frames, stop):
    """Checksums of the id maps by time of capture."""
    offset = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    with Subscriber(socket, timeout=30, reconnect=True) as masks:
        for frame in masks:
            frames[frame.captured_ns + offset] = zlib.crc32(np.array(frame.ids).astype("<u2").tobytes())
            if stop.is_set():
                return


def compare(samples, frames):
    """(equal, compared): samples with the pixels of the frame of their time, of those whose frame the Python client was not too slow for."""
    equal = compared = 0
    for payload, _ in samples:
        stamp, _frame_id, form, data = compressed(payload)
        nearest = min(list(frames), key=lambda at: abs(at - stamp), default=0)
        if abs(nearest - stamp) < 5_000_000:  # frames are 66 ms apart
            pixels = np.array(Image.open(io.BytesIO(data))).astype("<u2")
            compared += 1
            equal += form == "mono16; png compressed " and zlib.crc32(pixels.tobytes()) == frames[nearest]
    return equal, compared


def tokens(peer):
    return sorted(str(reply.ok.key_expr) for reply in peer.liveliness().get("@ros2_lv/0/**", timeout=2) if reply.ok)


with tempfile.TemporaryDirectory() as directory:
    socket = f"{directory}/masks.sock"
    daemon = real_daemon(directory, socket)
    until(lambda: Path(socket).exists())
    frames, stop = {}, threading.Event()
    reader = threading.Thread(target=ring_ids, args=(socket, frames, stop), daemon=True)
    reader.start()
    until(lambda: frames)

    bridge = Program(directory, "bridge", [BRIDGE, "-v", "zenoh", "--router", "--socket", socket])
    peer = session()
    panoptic, labels = Heard(peer, PANOPTIC), Heard(peer, LABELS)
    check("a session that knows only the port hears the masks", bool(until(lambda: len(panoptic.samples) >= 30)), f"{len(panoptic.samples)} samples")
    first = list(panoptic.samples)
    equal, compared = compare(first, frames)
    check("pixels and stamps are the ring's", equal == compared > len(first) // 2, f"{equal} of {compared}, {len(first)} came")
    attachments = [attachment for _, attachment in first]
    numbers = [struct.unpack_from("<q", attachment)[0] for attachment in attachments]
    check("each has 33 bytes of attachment, numbered without a gap",
          all(len(attachment) == 33 and attachment[16] == 16 for attachment in attachments) and numbers == list(range(numbers[0], numbers[0] + len(numbers))))
    check("one publisher's id", len({attachment[17:] for attachment in attachments}) == 1)
    check("who comes late gets the labels within a second or two", bool(until(lambda: labels.samples, 10)) and b"floor" in labels.samples[0][0])

    found = tokens(peer)
    node = [token for token in found if "/NN/" in token]
    check("the node is listed", len(node) == 1 and node[0].endswith("/0/0/NN/%/%/eomt_edge"), node)
    check("its topics are listed with their types", sum("/MP/" in token for token in found) == 6 and any(f"/%eomt_edge%panoptic%compressed/{COMPRESSED}/::,5:,:,:,," in token for token in found), len(found))

    overlay = Heard(peer, OVERLAY)
    check("the overlay comes once somebody subscribes", bool(until(lambda: overlay.samples)) and Image.open(io.BytesIO(compressed(overlay.samples[0][0])[3])).format == "JPEG")

    before = len(panoptic.samples)
    daemon.end(signal.SIGKILL)
    daemon = real_daemon(directory, socket, "daemon2")
    check("masks come again after the daemon was killed and started", bool(until(lambda: len(panoptic.samples) >= before + 15)), f"{len(panoptic.samples) - before} more")

    bridge.end(signal.SIGKILL)
    before = len(panoptic.samples)
    bridge = Program(directory, "bridge2", [BRIDGE, "-v", "zenoh", "--router", "--socket", socket])
    check("and after the bridge was", bool(until(lambda: len(panoptic.samples) >= before + 15)), f"{len(panoptic.samples) - before} more")
    check("SIGTERM ends it in good order", bridge.end() == 0, bridge.words().splitlines()[-1])
    peer.close()

    # a router of somebody else's
    config = zenoh.Config()
    for key, value in {"mode": "router", "listen/endpoints": ["tcp/[::]:7447"], "scouting/multicast/enabled": False}.items():
        config.insert_json5(key, json.dumps(value))
    router = zenoh.open(config)
    bridge = Program(directory, "bridge3", [BRIDGE, "-v", "zenoh", "--socket", socket, "--distro", "humble"])
    peer = session()
    humble = Heard(peer, "0/eomt_edge/panoptic/compressed/sensor_msgs::msg::dds_::CompressedImage_/TypeHashNotSupported")
    check("through another router, with Humble's keys", bool(until(lambda: len(humble.samples) >= 15)), f"{len(humble.samples)} samples")
    bridge.end()
    check("the node is gone at once", bool(until(lambda: not tokens(peer), 10)), tokens(peer))
    peer.close()
    router.close()
    stop.set()
    daemon.end()
check.end()
