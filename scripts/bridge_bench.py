"""The ROS 2 bridge against a plain rclpy node that relays the ring, in turns in one run: see bridge-bench.sh.

    bridge_bench.py PYTHON          the driver; PYTHON has rclpy. ROUNDS (5) turns of each kind, SECONDS_EACH (10) counted in each
    bridge_bench.py subscribe KIND TOPIC ...   a node of that distribution; KIND is png, decoded or raw
    bridge_bench.py relay SOCKET               ids and classes as raw mono16 pictures, as one writes it who has the Python client and rclpy

Latency is from the ring's publication (published_ns) to the subscriber's callback, by the frame's stamp. CPU is user and system time of both sides.
"""
import array
import io
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time

TOPICS = ["panoptic", "semantic"]
SIZE = "640x480"
NEAR_NS = 10_000_000  # stamps of one frame are closer than this, those of two frames are 66 ms apart


def offset():
    """The wall clock minus the ring's clock, which nobody sets in this namespace."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def spin(name, use):
    import rclpy
    from rclpy.executors import ExternalShutdownException
    rclpy.init()
    node = rclpy.create_node(name)
    signal.signal(signal.SIGTERM, lambda *_: rclpy.try_shutdown())
    use(node)
    try:
        rclpy.spin(node)
    except ExternalShutdownException:
        pass


def subscribe(kind, topics):
    """Says `first` once each topic came; at the end all stamps and times."""
    import numpy as np
    from PIL import Image as Picture
    from sensor_msgs.msg import CompressedImage, Image
    came = {topic: [] for topic in topics}

    def take(topic, message):
        now = time.monotonic_ns()
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        if kind == "decoded":
            np.asarray(Picture.open(io.BytesIO(message.data)))
        came[topic].append((stamp, now, len(message.data)))
        if len(came[topic]) == 1 and all(came.values()):
            print("first", flush=True)

    def use(node):
        for topic in topics:
            node.create_subscription(Image if kind == "raw" else CompressedImage, topic, lambda message, topic=topic: take(topic, message), 5)

    spin("bench_subscriber", use)
    print(json.dumps(came), flush=True)


def relay(socket):
    import numpy as np
    from eomt_edge_client import Subscriber
    from sensor_msgs.msg import Image

    def publish(publisher, stamp, values):
        height, width = values.shape
        message = Image(height=height, width=width, encoding="mono16", step=2 * width)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        # an array is taken as it is; bytes would be looked at one by one
        message.data = array.array("B", values.tobytes())
        publisher.publish(message)

    def run(publishers):
        with Subscriber(socket, timeout=60) as masks:
            number = {label: index + 1 for index, label in enumerate(masks.labels)}
            for frame in masks:
                stamp = frame.captured_ns + offset()
                class_of = np.zeros(65536, np.uint16)
                for segment in frame.segments:
                    class_of[segment.id] = number[segment.label]
                publish(publishers[0], stamp, frame.ids)
                publish(publishers[1], stamp, class_of[frame.ids])

    def use(node):
        publishers = [node.create_publisher(Image, f"/relay/{topic}", 5) for topic in TOPICS]
        threading.Thread(target=run, args=(publishers,), daemon=True).start()

    spin("relay", use)


class Ring(threading.Thread):
    """Stamp of each frame, and when the ring had it."""

    def __init__(self, socket):
        super().__init__(daemon=True)
        self.socket, self.frames = socket, []
        self.start()

    def run(self):
        from eomt_edge_client import Ended, Subscriber
        try:
            with Subscriber(self.socket, timeout=60) as masks:
                for frame in masks:
                    self.frames.append((frame.captured_ns + offset(), frame.published_ns))
        except Ended:
            pass


def cpu_ms(process):
    """User and system time so far, in steps of 10 ms."""
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def latencies(frames, came):
    """Milliseconds from the ring's publication to the callback, of each message."""
    import bisect
    stamps, found = [stamp for stamp, _ in frames], []
    for stamp, now, _ in came:
        at = bisect.bisect_left(stamps, stamp - NEAR_NS)
        if at < len(stamps) and abs(stamps[at] - stamp) < NEAR_NS:
            found.append((now - frames[at][1]) / 1e6)
    return found


def turn(directory, python, socket, ring, kind, seconds):
    """One turn of one kind. cpu: milliseconds a frame of publisher and subscriber."""
    from checking import BRIDGE, Program, until
    here = os.path.abspath(__file__)
    topics = [f"/relay/{topic}" if kind == "raw" else f"/eomt_edge/{topic}/compressed" for topic in TOPICS]
    publisher = Program(directory, f"publisher-{kind}", [python, here, "relay", socket] if kind == "raw" else [BRIDGE, "ros2", "--socket", socket])
    subscriber = Program(directory, f"subscriber-{kind}-{time.monotonic_ns()}", [python, here, "subscribe", kind, *topics])
    if not until(lambda: "first" in subscriber.words(), 120):
        sys.exit(f"bridge-bench: {kind}: nothing came\n{publisher.words()[-2000:]}\n{subscriber.words()[-2000:]}")
    time.sleep(2)  # discovery is over
    both = (publisher.process, subscriber.process)
    before, start = [cpu_ms(process) for process in both], time.monotonic_ns()
    time.sleep(seconds)
    end, used = time.monotonic_ns(), [cpu_ms(process) for process in both]
    memory = peak_memory(publisher.process.pid)
    for process in (subscriber.process, publisher.process):
        process.send_signal(signal.SIGTERM)
        process.wait(120)  # Python's threads end when they have come that far
    came = json.loads(next(line for line in subscriber.words().splitlines() if line.startswith("{")))
    rows = {topic: [row for row in came[topic] if start <= row[1] < end] for topic in topics}
    published = sum(start <= at < end for _, at in ring.frames)
    frames = min(len(rows[topic]) for topic in topics)
    per_frame = [(after - first) / max(frames, 1) for after, first in zip(used, before)]
    latency = [value for topic in topics for value in latencies(ring.frames, rows[topic])]
    size = sum(row[2] for topic in topics for row in rows[topic]) / max(sum(map(len, rows.values())), 1)
    return {"latency": latency, "cpu": per_frame, "frames": frames, "of": published, "memory": memory, "size": size}


def peak_memory(pid):
    """MiB, the most so far."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def daemon(directory, socket, fps=15):
    from checking import DAEMON, Program, root, until
    keys = [f"ring.socket={socket}", "ring.include_frame=true", f"source.fps={fps}", f"source.size={SIZE}"]
    command = [DAEMON, "run", "--source", "scenes", "--model", str(root / "models/eomt-nano-scenes.onnx")]
    program = Program(directory, f"daemon{fps}", command + [word for key in keys for word in ("--set", key)])
    if not until(lambda: os.path.exists(socket), 60):
        sys.exit(f"bridge-bench: no daemon\n{program.words()}")
    return program


def main(python):
    rounds, seconds = int(os.environ.get("ROUNDS", "5")), float(os.environ.get("SECONDS_EACH", "10"))
    kinds, turns = ["png", "decoded", "raw"], {}
    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/masks.sock"
        running, ring = daemon(directory, socket), Ring(socket)
        for number in range(rounds):
            for kind in kinds:
                turns.setdefault(kind, []).append(turn(directory, python, socket, ring, kind, seconds))
                print(f"bridge-bench: round {number + 1}, {kind}: {turns[kind][-1]['frames']} of {turns[kind][-1]['of']} frames", file=sys.stderr)
        running.end()
    print(f"\n{SIZE}, 15 Hz, two topics, {rounds} turns of {seconds:.0f} s, minimum / median")
    print("| topics | latency ms | CPU ms a frame: publisher | subscriber | both | frames came | bytes | peak MiB |\n|---|---|---|---|---|---|---|---|")
    pair = lambda values: f"{min(values):.2f} / {statistics.median(values):.2f}"
    both = {kind: [sum(one["cpu"]) for one in turns[kind]] for kind in kinds}
    for kind in kinds:
        latency = [value for one in turns[kind] for value in one["latency"]]
        cpus = [pair([one["cpu"][side] for one in turns[kind]]) for side in (0, 1)]
        came = f"{sum(one['frames'] for one in turns[kind])} of {sum(one['of'] for one in turns[kind])}"
        size, memory = statistics.mean(one["size"] for one in turns[kind]), max(one["memory"] for one in turns[kind])
        print(f"| {kind} | {pair(latency)} | {cpus[0]} | {cpus[1]} | {pair(both[kind])} | {came} | {size:.0f} | {memory:.1f} |")
    for kind in kinds[:2]:
        print(f"{kind} / raw: {min(both[kind]) / min(both['raw']):.2f} of minima, {statistics.median(both[kind]) / statistics.median(both['raw']):.2f} of medians")


if __name__ == "__main__":
    if sys.argv[1] == "subscribe":
        subscribe(sys.argv[2], sys.argv[3:])
    elif sys.argv[1] == "relay":
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../clients/python"))
        relay(sys.argv[2])
    else:
        main(os.path.abspath(sys.argv[1]))
