"""A real daemon for a test: EOMT_EDGE names the program (target/release/eomt-edge unless set)."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import Callable, List, Optional

from eomt_edge_client import Subscriber

ROOT = pathlib.Path(os.environ.get("EOMT_EDGE_REPOSITORY") or pathlib.Path(__file__).resolve().parents[3])
PROGRAM = os.environ.get("EOMT_EDGE", str(ROOT / "target/release/eomt-edge"))
PATIENCE = 120.0


def until(what: str, condition: Callable[[], bool]) -> None:
    """Waits for something that must happen."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.002)


class Daemon:
    """Segments procedural scenes as fast as it can, unless `settings` say otherwise. Its directory goes with it."""

    def __init__(self, *settings: str, source: str = "scenes:3"):
        self._directory = tempfile.TemporaryDirectory()
        self.socket = os.path.join(self._directory.name, "masks.sock")
        self._arguments = [PROGRAM, "run", "--source", source, "--model", str(ROOT / "models/eomt-nano-scenes.onnx")]
        for setting in (f"ring.socket={self.socket}", "source.size=64x48", "source.fps=0", *settings):
            self._arguments += ["--set", setting]
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self.start()

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end(SIGKILL)
        self._directory.cleanup()

    def start(self) -> None:
        with open(os.path.join(self._directory.name, "log"), "ab") as log:
            process = self._process = subprocess.Popen(self._arguments, stderr=log)
        try:
            until("the daemon's socket", lambda: process.poll() is not None or os.path.exists(self.socket))
        finally:
            if process.poll() is not None:
                print(self.log(), file=sys.stderr)

    def log(self) -> str:
        with open(os.path.join(self._directory.name, "log"), encoding="utf-8") as log:
            return log.read()

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def pause(self) -> None:
        """Publishes a frame at least, and then stands still until SIGCONT."""
        with Subscriber(self.socket, PATIENCE) as witness:
            next(witness)
        self.signal(SIGSTOP)
        assert self._process is not None
        tasks = pathlib.Path(f"/proc/{self._process.pid}/task")
        until("the daemon to stop", lambda: all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks.iterdir()))

    def end(self, number: int = SIGTERM) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.send_signal(SIGCONT)
            self._process.wait()


def descriptors_and_mappings() -> List[str]:
    """What this process holds of rings: open descriptors, and mapped memory."""
    held = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            held.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            pass  # the one that listed them
    with open("/proc/self/maps", encoding="utf-8") as maps:
        held += [f"map {line.split(maxsplit=5)[5].strip()}" for line in maps if "memfd:" in line]
    return sorted(name for name in held if "memfd:" in name or name.startswith(("socket:", "anon_inode:")))
