"""What the checks of bridges share: programs that are started and ended, conditions that are waited for, a count of failures."""
import atexit
import os
import pathlib
import signal
import subprocess
import sys
import time

root = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root / "clients/python"))

DAEMON = os.environ.get("EOMT_EDGE", str(root / "target/release/eomt-edge"))
BRIDGE = os.environ.get("EOMT_EDGE_BRIDGE", str(root / "target/release/eomt-edge-bridge"))


class Checks:
    """Prints each result; `end` gives the exit code."""

    def __init__(self):
        self.failed = 0

    def __call__(self, name, good, detail=""):
        self.failed += not good
        print("ok  " if good else "FAIL", name, detail, flush=True)
        return good

    def end(self):
        print(f"{self.failed} failed" if self.failed else "all good")
        sys.exit(bool(self.failed))


def until(condition, seconds=30.0):
    """What `condition` gives once it is true, else what it gave last. Waiting ends nothing else: a slow machine only takes longer."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.05)


class Program:
    """A program with its log in a file."""

    def __init__(self, directory, name, command, **more):
        self.log_path = pathlib.Path(directory) / f"{name}.log"
        self.log = open(self.log_path, "a")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, **more)
        # a check that fails by an exception leaves nothing behind
        atexit.register(self.process.kill)

    def words(self):
        return self.log_path.read_text(errors="replace")

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(20)


def real_daemon(directory, socket, name="daemon"):
    """The daemon with its own moving scenes."""
    keys = [f"ring.socket={socket}", "ring.include_frame=true", "source.fps=15"]
    command = [DAEMON, "run", "--source", "scenes", "--model", str(root / "models/eomt-nano-scenes.onnx")]
    return Program(directory, name, command + [word for key in keys for word in ("--set", key)])
