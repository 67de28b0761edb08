"""Instructions a frame and peak memory of each bridge, with what asks for its frames: see bridge-bench.sh.

    bridge_cost.py PYTHON [BRIDGE ...]     PYTHON has rclpy; names of `bridges` below, all without

Instructions are callgrind's, over all threads, on frames of the daemon's scenes with the camera frame in the ring. Three runs of each bridge (slow, fast, slow
and twice as long) tell apart what starting costs, what a second costs and what a frame costs. Another counter: COUNTER, a command that gets OUT PROGRAM
ARGUMENTS and leaves `... insns=N` as the last line of OUT.txt, as benches/a64count/count.sh does; EOMT_EDGE_BRIDGE is then a program of that machine.
"""
import base64
import ctypes
import os
import re
import shlex
import signal
import socket as sockets
import struct
import sys
import tempfile
import threading
import time

import numpy as np

from bridge_bench import TOPICS, daemon, peak_memory
from checking import BRIDGE, Program, until

COUNTER = shlex.split(os.environ.get("COUNTER", ""))
SECONDS = float(os.environ.get("SECONDS_EACH", "10"))
SLOW, FAST = 1, 4  # frames a second that a bridge under valgrind can follow; it may skip some, as long as it says how many it took
PORT = 18080
here = os.path.dirname(os.path.abspath(__file__))


def without_auxv():
    """For valgrind, which takes the vDSO away: rustix would look for it where prctl(PR_GET_AUXV) says, and falls back to /proc when that fails."""
    prctl, allow, fail = {"x86_64": 157, "aarch64": 167}[os.uname().machine], 0x7FFF0000, 0x00050016
    get_auxv, load, jump_if, give = 0x41555856, 0x20, 0x15, 0x06
    steps = [(load, 0, 0, 0), (jump_if, 0, 3, prctl), (load, 0, 0, 16), (jump_if, 0, 1, get_auxv), (give, 0, 0, fail), (give, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if libc.prctl(22, 2, struct.pack("<HxxxxxxQ", len(steps), ctypes.addressof(code)), 0, 0):  # PR_SET_SECCOMP
        os._exit(127)


class Viewer(threading.Thread):
    """The page's end of the WebSocket: takes each frame and asks for the next."""

    def __init__(self):
        super().__init__(daemon=True)
        self.frames = 0
        self.start()

    def run(self):
        def connected():
            try:
                return sockets.create_connection(("127.0.0.1", PORT))
            except OSError:
                return None
        link = until(connected, 120)
        key = base64.b64encode(os.urandom(16)).decode()
        link.sendall(f"GET /live HTTP/1.1\r\nHost: localhost:{PORT}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     f"Sec-WebSocket-Key: {key}\r\n\r\n".encode())
        stream = link.makefile("rb")
        while stream.readline() not in (b"\r\n", b""):
            pass
        ack = b'{"do":"ack"}'
        while len(head := stream.read(2)) == 2:
            length = head[1] & 127
            length = int.from_bytes(stream.read(2 if length == 126 else 8), "big") if length > 125 else length
            stream.read(length)
            if head[0] & 15 == 2:
                self.frames += 1
                link.sendall(bytes([0x81, 0x80 | len(ack)]) + bytes(4) + ack)


def subscriber(python, *topics):
    names = [f"/eomt_edge/{topic}/compressed" for topic in topics]
    return lambda directory: Program(directory, "subscriber", [python, f"{here}/bridge_bench.py", "subscribe", "png", *names])


def broker(directory):
    with open(f"{directory}/mosquitto.conf", "w") as file:
        file.write("persistence false\nallow_anonymous true\nlistener 1883 127.0.0.1\nuser root\n")
    return Program(directory, "mosquitto", ["mosquitto", "-c", f"{directory}/mosquitto.conf"])


def bridges(directory, python):
    """Name, arguments, who asks."""
    with open(f"{directory}/mqtt.toml", "w") as file:
        file.write('broker = "mqtt://127.0.0.1"\nnode = "bench"\n')
    nobody = lambda _directory: None
    return [
        ("ros2, masks", ["-v", "ros2"], subscriber(python, *TOPICS)),
        ("ros2, masks, overlay, camera", ["-v", "ros2", "--camera"], subscriber(python, *TOPICS, "overlay", "image")),
        ("zenoh, masks", ["-v", "zenoh", "--router"], nobody),
        ("record", ["-v", "record", f"{directory}/out.mcap"], nobody),
        ("record, camera", ["-v", "record", f"{directory}/out.mcap", "--camera", "jpeg"], nobody),
        ("web, one viewer", ["web", "--listen", f"127.0.0.1:{PORT}"], lambda _directory: Viewer()),
        ("metrics", ["metrics"], nobody),
        ("mqtt", ["mqtt", "--config", f"{directory}/mqtt.toml"], broker),
    ]


def run(directory, fps, seconds, arguments, asks, counted):
    """(instructions, frames, MiB, seconds) of one run, from the start to the end, with a daemon of its own."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        os.chmod(place, 0o755)
        socket, out = f"{place}/masks.sock", f"{place}/count"
        running, asking = daemon(place, socket, fps), asks(place)
        valgrind = ["valgrind", "--tool=callgrind", "--fair-sched=yes", f"--callgrind-out-file={out}"]
        prefix = [] if not counted else [*COUNTER, out] if COUNTER else valgrind
        more = {"preexec_fn": without_auxv} if counted and not COUNTER else {}
        before, start = published(socket), time.monotonic()
        program = Program(place, "bridge", [*prefix, BRIDGE, *arguments, "--socket", socket], **more)
        if isinstance(asking, Program) and "subscribe" in asking.process.args:
            until(lambda: "first" in asking.words() or program.process.poll() is not None, 300)
        elif isinstance(asking, Viewer):
            until(lambda: asking.frames or program.process.poll() is not None, 300)
        time.sleep(seconds)
        if program.process.poll() is not None:
            sys.exit(f"bridge-bench: {shlex.join(map(str, arguments))} has ended\n{program.words()[-2000:]}")
        memory, frames = peak_memory(program.process.pid), published(socket) - before
        program.process.send_signal(signal.SIGTERM)
        program.process.wait(120)
        took = time.monotonic() - start
        for other in (running, asking):
            if isinstance(other, Program):
                other.end(signal.SIGKILL)
        words = program.words()
        if counted:
            text = words if not COUNTER else open(f"{out}.txt").read()
            found = re.findall(r"Collected : (\d+)|insns=(\d+)", text)
            if not found:
                sys.exit(f"bridge-bench: {shlex.join(map(str, arguments))} has not been counted\n{words[-2000:]}")
        instructions = int("".join(found[-1])) if counted else 0
        said = re.findall(r"(\d+) frames", words)
        # a bridge that is slower than the daemon says how many it took, or its viewer does
        frames = asking.frames if isinstance(asking, Viewer) else int(said[-1]) if said else frames
        return instructions, frames, memory, took


def published(socket):
    from eomt_edge_client import Subscriber
    with Subscriber(socket, timeout=60) as masks:
        return next(masks).sequence


def main(python, names):
    with tempfile.TemporaryDirectory() as directory:
        print("| bridge | instructions a frame, M | instructions a second besides, M | at 15 Hz, M a second | peak MiB |\n|---|---|---|---|---|")
        for name, arguments, asks in bridges(directory, python):
            if names and name not in names:
                continue
            plans = [(SLOW, SECONDS), (FAST, SECONDS), (SLOW, 2 * SECONDS)]
            runs = [run(directory, fps, seconds, arguments, asks, True) for fps, seconds in plans]
            equations = np.array([[1, took, frames] for _, frames, _, took in runs], float)
            _, second, frame = np.linalg.solve(equations, [count / 1e6 for count, *_ in runs])
            _, _, memory, _ = run(directory, 15, SECONDS, arguments, asks, False)
            print(f"| {name} | {frame:.2f} | {second:.2f} | {15 * frame + second:.0f} | {memory:.1f} |", flush=True)
            print(f"bridge-bench: {name}: {runs}", file=sys.stderr)


main(os.path.abspath(sys.argv[1]), sys.argv[2:])
