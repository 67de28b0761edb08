"""Receive segmentation masks of a running eomt-edge daemon, zero configuration, standard library and numpy only.

    import eomt_edge_client

    with eomt_edge_client.Subscriber("/run/eomt-edge/masks.sock") as masks:
        for frame in masks:
            print(frame.sequence, frame.ids.shape, [s.label for s in frame.segments])

A frame is the reader's own copy. A slow reader gets the newest frame and skips the ones in between (``masks.skipped``); it
never blocks the daemon and never gets a torn frame. When the daemon ends, iteration raises ``Ended`` (or reconnects, with
``Subscriber(path, reconnect=True)``). For an event loop, ``masks.fileno()`` is readable when there is a frame or an end; then
call ``masks.next(timeout=0)``.

Whatever listens on the socket: no call lasts longer than its timeout (CLOCK_MONOTONIC), every failure is an ``Error`` of this module,
and none leaks memory or a descriptor.

Command line: ``python -m eomt_edge_client --socket PATH --frames N [--json]``.

The byte layout is that of ``crates/client/src/layout.rs`` in the eomt-edge repository. Linux, 64-bit, little-endian.
"""

from __future__ import annotations

import argparse
import array
import fcntl
import json
import math
import mmap
import os
import select
import socket
import stat
import struct
import sys
import threading
import time
import zlib
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Iterator, List, Optional

import numpy as np

__all__ = ["Closed", "ConnectError", "DescriptorsLost", "Drops", "Ended", "Error", "Frame", "ProtocolError", "Segment", "Subscriber", "TimedOut"]
__version__ = "0.1.0"

DEFAULT_SOCKET = "/run/eomt-edge/masks.sock"

ABI_VERSION = 2
ABI_OLDEST = 1
"""Rings of this version are read as well; what they do not say is None or 0."""
RING_MAGIC = int.from_bytes(b"EOMTRING", "little")
HELLO_MAGIC = int.from_bytes(b"EOMTHELO", "little")
SLOT_MAGIC = int.from_bytes(b"SLOT", "little")
MIN_SLOTS, MAX_SLOTS, MAX_SIDE, MAX_SEGMENTS = 2, 64, 16384, 65535
# Bytes: no more is mapped, whatever a hello announces; no more labels, and no more metadata, are copied.
MAX_RING_BYTES, MAX_TEXT_BYTES = 4 << 30, 16 << 20
SLOT_HEADER_BYTES_V1, MAX_ROW_BYTES = 128, 4096
RING_HAS_FRAME = 1
SLOT_STALE, SLOT_NO_SIGNAL, SLOT_HAS_FRAME, SLOT_HAS_CHECKSUM, SLOT_TRUNCATED = 1, 2, 4, 8, 16
FRAME_BT709, FRAME_FULL_RANGE = 1, 2
HELLO_OK = 0

HELLO = np.dtype([
    ("magic", "<u8"), ("abi_version", "<u4"), ("status", "<u4"), ("generation", "<u8"), ("ring_bytes", "<u8"),
    ("writer_pid", "<u4"), ("reserved", "<u4"), ("message", "V88"),
])
RING_INFO = np.dtype([
    ("magic", "<u8"), ("abi_version", "<u4"), ("header_bytes", "<u4"), ("slot_count", "<u4"), ("max_segments", "<u4"),
    ("max_width", "<u4"), ("max_height", "<u4"), ("slots_offset", "<u8"), ("slot_stride", "<u8"), ("total_bytes", "<u8"),
    ("table_offset", "<u8"), ("ids_offset", "<u8"), ("frame_offset", "<u8"), ("labels_offset", "<u8"), ("labels_bytes", "<u8"),
    ("metadata_offset", "<u8"), ("metadata_bytes", "<u8"), ("label_count", "<u4"), ("flags", "<u4"), ("writer_pid", "<u4"),
    ("row_bytes", "<u4"), ("created_ns", "<u8"), ("reserved_words", "<u8", (7,)),
])
RING_HEADER = np.dtype([
    ("info", RING_INFO), ("latest", "<u8"), ("heartbeat_ns", "<u8"), ("closed", "<u4"), ("reserved", "<u4", (11,)),
])
SLOT_INFO = np.dtype([
    ("sequence", "<u8"), ("frame_sequence", "<u8"), ("captured_ns", "<u8"), ("published_ns", "<u8"), ("dropped", "<u8"),
    ("width", "<u4"), ("height", "<u4"), ("source_id", "<u4"), ("flags", "<u4"), ("segment_count", "<u4"), ("checksum", "<u4"),
    ("stage_us", "<u4", (4,)), ("model_hash", "V16"), ("stamp_ns", "<u8"), ("dropped_busy", "<u8"), ("dropped_source", "<u8"),
    ("dropped_corrupt", "<u8"), ("failed", "<u8"), ("frame_format", "<u4"), ("frame_stride", "<u4"), ("frame_bytes", "<u4"),
    ("frame_colour", "<u4"), ("reserved", "<u8", (11,)),
])
SLOT_HEADER = np.dtype([("magic", "<u4"), ("abi_version", "<u4"), ("lock", "<u8"), ("info", SLOT_INFO)])
SEGMENT_ROW = np.dtype([
    ("id", "<u2"), ("class", "<u2"), ("score", "<f4"), ("bbox", "<u4", (4,)), ("area", "<u4"), ("track_id", "<u4"),
])
for _dtype, _size in ((HELLO, 128), (RING_INFO, 192), (RING_HEADER, 256), (SLOT_INFO, 240), (SLOT_HEADER, 256), (SEGMENT_ROW, 32)):
    if _dtype.itemsize != _size:
        raise ImportError(f"layout of {_dtype} is {_dtype.itemsize} bytes, not {_size}")


def _even(side: int) -> int:
    return (side + 1) // 2 * 2  # chroma that pixels share is rounded up


# V4L2 pixel formats without padding: bytes from row to row of the first plane, and of all planes, for a width and a height.
_SIZES = {
    **dict.fromkeys(["RGB3", "BGR3"], (lambda w: 3 * w, lambda w, h: 3 * w * h)),
    **dict.fromkeys(["XB24", "BX24", "XR24", "RX24"], (lambda w: 4 * w, lambda w, h: 4 * w * h)),
    **dict.fromkeys(["RGBP", "Y16"], (lambda w: 2 * w, lambda w, h: 2 * w * h)),
    **dict.fromkeys(["YUYV", "UYVY", "YVYU", "VYUY"], (lambda w: 2 * _even(w), lambda w, h: 2 * _even(w) * h)),
    "GREY": (lambda w: w, lambda w, h: w * h),
    **dict.fromkeys(["NV12", "NV21", "YU12"], (lambda w: w, lambda w, h: w * h + _even(w) * _even(h) // 2)),
    **dict.fromkeys(["NV16", "NV61"], (lambda w: w, lambda w, h: (w + _even(w)) * h)),
    **dict.fromkeys(["NV24", "NV42"], (lambda w: w, lambda w, h: 3 * w * h)),
}

# linux/fcntl.h; the fcntl module has names for them only since Python 3.8 on some builds.
_F_GET_SEALS, _F_SEAL_SHRINK = 1034, 0x0002
# The ring is looked at this often even if no event comes.
_RECHECK_S = 1.0
_COPY_ATTEMPTS = 1000
# What accepts and says hello does both at once: without a timeout of the caller's, a connect waits so long.
_CONNECT_TIMEOUT_S = 5.0
# Between two looks at a queue that is full: there is nothing to wait on.
_QUEUE_PAUSE_S = 0.005
# An event that is readable so many times in a call and brings nothing is not asked any more; the ring is, at this interval.
_VAIN_WAKEUPS_MAX, _VAIN_PAUSE_S = 8, 0.01
# SCM_MAX_FD of Linux: all descriptors that arrive are seen and closed.
_FDS_MAX = 253


class Error(Exception):
    """Any failure of this client."""


class ConnectError(Error):
    """Nobody listens there, or this process may not connect, or the daemon refused it."""


class TimedOut(ConnectError, TimeoutError):
    """No daemon, no hello or no frame within the timeout."""


class ProtocolError(Error):
    """What listens there is no eomt-edge that this client understands."""


class DescriptorsLost(Error):
    """The daemon's descriptors did not get here: this process has none free, or a security module forbids it to receive them."""


class Closed(Error, ValueError):
    """The subscriber was closed before."""


class Ended(Error):
    """No more frames come. ``clean``: the daemon said goodbye; otherwise it died."""

    def __init__(self, path: str, clean: bool):
        super().__init__(f"the daemon at {path} {'closed this mask ring' if clean else 'has ended'}")
        self.clean = clean


@dataclass(frozen=True)
class Segment:
    """One row of the segment table."""

    id: int
    category_id: int
    label: Optional[str]
    score: float
    area: int
    bbox: tuple
    track_id: int


@dataclass(frozen=True)
class Drops:
    """Frames whose processing never began, since the daemon's start, by cause. Of a daemon of ABI 1 only ``total`` is known."""

    total: int
    busy: int
    """A newer one took their place before the network was free."""
    source: int
    """Lost before the daemon saw them."""
    corrupt: int
    """They arrived damaged."""


@dataclass(frozen=True)
class Frame:
    """Masks of one camera frame. Arrays are this reader's own."""

    sequence: int
    """Counts publications of the ring from 1."""
    frame_sequence: int
    """The source's own frame counter."""
    captured_ns: int
    """CLOCK_MONOTONIC, nanoseconds (compare with ``time.monotonic_ns()``)."""
    published_ns: int
    """CLOCK_MONOTONIC, nanoseconds."""
    dropped: int
    """Frames that were captured and never processed since the daemon started."""
    source_id: int
    """Another one for another source or camera, the same after a restart; 0 = no frame yet."""
    model_hash: bytes
    """First 16 bytes of the model file's SHA-256."""
    stage_us: tuple
    """Microseconds of preprocess, infer, segment, publish."""
    stale: bool
    """``published_ns - captured_ns`` exceeds the daemon's ``source.no_signal_after`` (2 seconds unless configured; 0 = no limit)."""
    no_signal: bool
    """The source gives no frames: the id map is empty, and ``captured_ns`` is that of the last frame."""
    truncated: bool
    """There were more segments than the table holds."""
    segments: List[Segment]
    ids: np.ndarray
    """(height, width) uint16, 0 = nothing."""
    rgb: Optional[np.ndarray]
    """(height, width, 3) uint8 when the daemon publishes the camera frame as RGB, else None."""
    labels: List[str]
    checksum_ok: Optional[bool]
    """Whether the daemon's checksum fits; None when it sends none."""
    drops: Drops
    """What ``dropped`` counts, by cause."""
    failed: int
    """Frames that were processed and came to nothing, since the daemon's start."""
    stamp_ns: Optional[int]
    """The source's own time stamp (a recording's, a ROS message's), nanoseconds since 1970; None when it has none."""
    frame_format: Optional[str]
    """V4L2 pixel format of ``frame_bytes``, such as ``RGB3``, ``YUYV`` or ``MJPG`` (one JPEG picture); None without a camera frame."""
    frame_stride: int
    """Bytes from row to row of its first plane, without padding; 0 = compressed."""
    frame_bytes: Optional[np.ndarray]
    """The camera frame, uint8 in one dimension, of the id map's width and height; None when the daemon publishes none."""
    frame_bt709: bool
    """Of YUV formats: BT.709 instead of BT.601."""
    frame_full_range: bool
    """Of YUV formats: samples of 0 to 255 instead of 16 to 235 (luma) and 240 (chroma)."""

    @property
    def width(self) -> int:
        return self.ids.shape[1]

    @property
    def height(self) -> int:
        return self.ids.shape[0]


class Subscriber:
    """A connection to a daemon and its mapped ring. Not for use by several threads at once.

    ``timeout`` (seconds, None = forever) is how long iteration waits for a frame before it raises ``TimedOut`` (a ``TimeoutError``).
    The constructor waits as long for a daemon that does not accept or say hello, five seconds when ``timeout`` is None.
    ``reconnect=True`` makes iteration wait for the daemon's return instead of raising ``Ended``, within the same timeout.
    """

    def __init__(self, path: str = DEFAULT_SOCKET, timeout: Optional[float] = None, reconnect: bool = False):
        self.path = os.fspath(path)
        self.timeout = timeout
        self.reconnect = reconnect
        self.skipped = 0
        """Frames published since the first one received that this reader was too slow for."""
        self.retries = 0
        """Copies thrown away because the writer came by."""
        self._fence_lock = threading.Lock()
        self._socket: Optional[socket.socket] = None
        self._event = -1
        self._epoll: Optional[select.epoll] = None
        self._map: Optional[mmap.mmap] = None
        self._words: Optional[memoryview] = None
        self._connect(_deadline(_CONNECT_TIMEOUT_S if timeout is None else timeout))

    # -- the life of a connection --------------------------------------------------------------------------------------

    def _connect(self, deadline: Optional[float]) -> None:
        fds: List[int] = []
        try:
            with self._own_errors(ConnectError, f"cannot connect to the mask socket {self.path}"):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
                self._knock(deadline)
                data, flags = _receive(self._socket, fds)
            hello = self._parse_hello(data, bool(flags & socket.MSG_TRUNC))
            if flags & socket.MSG_CTRUNC:
                raise DescriptorsLost(
                    f"the ring's descriptors did not arrive from {self.path} ({len(fds)} of 2): this process has no free descriptor "
                    "(see ulimit -n), or a security module (SELinux, AppArmor) forbids it to receive them")
            if len(fds) != 2:
                raise ProtocolError(f"{self.path} is not a mask socket: the hello came with {len(fds)} descriptors instead of its two")
            with self._own_errors(ProtocolError, f"the mask ring of {self.path} cannot be read"):
                self._open_ring(fds[0], int(hello["ring_bytes"]))
                self._adopt_event(fds[1])
                self._event = fds.pop()
            self.generation = int(hello["generation"])
            with self._own_errors(Error, f"waiting for masks of {self.path} failed"):
                self._epoll = select.epoll()
                self._epoll.register(self._event, select.EPOLLIN)
                self._epoll.register(self._socket.fileno(), select.EPOLLIN | select.EPOLLRDHUP)
        except BaseException:
            self.close()
            raise
        finally:
            for fd in fds:
                os.close(fd)

    @contextmanager
    def _own_errors(self, kind, what: str):
        """Whatever the system or a library says of what the daemon sent becomes an error of this module."""
        try:
            yield
        except Error:
            raise
        except (OSError, ValueError, OverflowError, MemoryError, RecursionError, struct.error) as error:
            raise kind(f"{what}: {error or type(error).__name__}") from error

    def _knock(self, deadline: Optional[float]) -> None:
        """Connects and waits for something to receive. A Unix socket whose queue is full says EAGAIN, and nothing tells when there is room."""
        while True:
            try:
                self._socket.connect(self.path)
                break
            except BlockingIOError:
                left = _left(deadline)
                if left is not None and left <= 0:
                    raise TimedOut(f"cannot connect to the mask socket {self.path}: it does not accept: its queue is full (the daemon "
                                   "hangs, or another program listens there)") from None
                time.sleep(_QUEUE_PAUSE_S if left is None else min(_QUEUE_PAUSE_S, left))
        if not self._poll_socket(deadline):
            raise TimedOut(f"cannot connect to the mask socket {self.path}: no hello came in time (the daemon hangs, or another program "
                           "listens there)")

    def _poll_socket(self, deadline: Optional[float]) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLRDHUP)
        left = _left(deadline)
        return bool(poll.poll(None if left is None else math.ceil(1000 * min(left, 86400.0))))

    def _adopt_event(self, event: int) -> None:
        # A timer and an eventfd belong to no file system and have no type.
        kind = stat.S_IFMT(os.fstat(event).st_mode)
        flags = fcntl.fcntl(event, fcntl.F_GETFL)
        if kind not in (0, stat.S_IFIFO):
            raise ProtocolError(f"the mask ring of {self.path} cannot be read: the event descriptor is neither a timer, an eventfd nor a pipe")
        if flags & os.O_ACCMODE == os.O_WRONLY or flags & os.O_PATH:
            raise ProtocolError(f"the mask ring of {self.path} cannot be read: the event descriptor cannot be read")
        os.set_blocking(event, False)

    def _parse_hello(self, data: bytes, cut: bool) -> np.void:
        if not data:
            raise ConnectError(f"the daemon at {self.path} hung up before its hello")
        if len(data) < 16 or struct.unpack_from("<Q", data)[0] != HELLO_MAGIC:
            raise ProtocolError(f"{self.path} is not a mask socket: it does not begin as one of eomt-edge")
        abi = struct.unpack_from("<I", data, 8)[0]
        if not ABI_OLDEST <= abi <= ABI_VERSION:
            raise ProtocolError(f"the daemon at {self.path} speaks ABI {abi} of the mask ring, this client {ABI_OLDEST} to {ABI_VERSION}")
        if cut or len(data) != HELLO.itemsize:
            raise ProtocolError(f"{self.path} is not a mask socket: a hello of {'more than ' if cut else ''}{len(data)} bytes")
        hello = np.frombuffer(data, HELLO)[0]
        if hello["status"] != HELLO_OK:
            reason = data[HELLO.fields["message"][1]:].split(b"\0")[0].decode("utf-8", "replace")
            raise ConnectError(f"the daemon at {self.path} refused this client: {_plain(reason)}")
        return hello

    def _open_ring(self, memfd: int, ring_bytes: int) -> None:
        problem = None if ring_bytes <= MAX_RING_BYTES else f"{ring_bytes} bytes were announced, more than the {MAX_RING_BYTES} of a ring"
        try:
            if problem is None and not fcntl.fcntl(memfd, _F_GET_SEALS) & _F_SEAL_SHRINK:
                problem = "the memfd is not sealed against shrinking"
        except OSError as error:
            problem = f"the descriptor is not a sealable memfd ({error})"
        size = os.fstat(memfd).st_size
        if problem is None and (size != ring_bytes or size < RING_HEADER.itemsize or size % 8):
            problem = f"the memfd has {size} bytes, {ring_bytes} were announced"
        if problem is None:
            self._map = mmap.mmap(memfd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
            # Aligned 64-bit items of a memoryview are read by a single load, which is what the seqlock needs.
            self._words = memoryview(self._map).cast("Q")
            info = np.frombuffer(bytes(self._map[:RING_INFO.itemsize]), RING_INFO)[0]
            self._ring = {name: int(info[name]) for name in RING_INFO.names if name != "reserved_words"}
            if self._ring["abi_version"] == 1:
                self._ring["row_bytes"] = SEGMENT_ROW.itemsize  # reserved there
            problem = _check_ring(self._ring, size)
        if problem is not None:
            raise ProtocolError(f"the mask ring of {self.path} cannot be read: {problem}")
        ring = self._ring
        text = self._map[ring["labels_offset"]:ring["labels_offset"] + ring["labels_bytes"]]
        # a row can name 65536 classes
        self.labels = [label.decode("utf-8", "replace") for label in text.split(b"\0", 65536)[:-1]]
        text = self._map[ring["metadata_offset"]:ring["metadata_offset"] + ring["metadata_bytes"]]
        with self._own_errors(ProtocolError, f"the mask ring of {self.path} cannot be read: its metadata is no JSON"):
            self.metadata = json.loads(text.decode("utf-8"))
        if not isinstance(self.metadata, dict):
            raise ProtocolError(f"the mask ring of {self.path} cannot be read: its metadata is no JSON object")
        self._last = 0

    def close(self) -> None:
        """Leaves the ring; frames already received stay valid."""
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._event >= 0:
            os.close(self._event)
            self._event = -1
        if self._words is not None:
            self._words.release()
            self._words = None
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:
                pass  # a copy failed, and its traceback still looks at the memory: freed with it
            self._map = None

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when there is a frame or an end; it changes when the subscriber reconnects."""
        if self._epoll is None:
            raise Closed("the subscriber is closed")
        return self._epoll.fileno()

    # -- frames --------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        deadline = _deadline(self.timeout)
        while True:
            try:
                frame = self.next(_left(deadline))
            except Ended:
                if not self.reconnect:
                    raise
                self._connect_again(deadline)
                continue
            if frame is None:
                raise TimedOut(f"no frame from {self.path} within {self.timeout} s")
            return frame

    def next(self, timeout: Optional[float] = None) -> Optional[Frame]:
        """Waits for a frame newer than the last one; None when ``timeout`` (seconds) passed. Raises ``Ended``."""
        if self._map is None:
            raise Ended(self.path, clean=False)
        deadline = _deadline(timeout)
        vain = 0
        while True:
            # The order matters: asking for the end first and for a frame second cannot miss the last frame.
            ended = self._ended()
            frame = self._copy_newest(deadline)
            if frame is not None:
                return frame
            if ended is not None:
                raise Ended(self.path, clean=ended)
            left = _left(deadline)
            if left is not None and left <= 0:
                return None
            vain += self._wait(left, ask_event=vain < _VAIN_WAKEUPS_MAX)

    def _wait(self, left: Optional[float], ask_event: bool) -> bool:
        """Whether the event became readable."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLRDHUP)
        if ask_event and self._event >= 0:
            poll.register(self._event, select.POLLIN)
        pause = _RECHECK_S if ask_event else _VAIN_PAUSE_S
        with self._own_errors(Error, f"waiting for masks of {self.path} failed"):
            ready = poll.poll(math.ceil(1000 * (pause if left is None else min(left, pause))))
        return any(fd == self._event for fd, _ in ready)

    def latest(self) -> Optional[Frame]:
        """The newest frame if it is newer than the last one; never waits, does not notice the end."""
        if self._map is None:
            return None
        return self._copy_newest(None)

    def _connect_again(self, deadline: Optional[float]) -> None:
        self.close()
        pause = 0.005
        while True:
            try:
                return self._connect(deadline)
            except ConnectError as error:
                left = _left(deadline)
                if left is not None and left <= 0:
                    raise TimedOut(f"the daemon at {self.path} did not come back within {self.timeout} s ({error})") from None
                time.sleep(pause if left is None else min(pause, left))
                pause = min(2 * pause, 0.2)

    def _drain(self) -> None:
        """Takes what is there, so that the event is readable again only after the next wake-up; never blocks.

        RWF_NOWAIT does not block whatever another holder did to the descriptor's flags; kernels before 6.5 don't know it for pipes.
        One that hung up tells nothing any more: the socket does.
        """
        if self._event < 0:
            return
        try:
            count = os.preadv(self._event, [bytearray(64)], -1, os.RWF_NOWAIT)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, AttributeError):
            poll = select.poll()
            poll.register(self._event, select.POLLIN)
            ready = poll.poll(0)
            if not ready:
                return
            try:
                count = len(os.read(self._event, 64)) if ready[0][1] & select.POLLIN else 0
            except OSError:
                return
        if count == 0:
            with self._own_errors(Error, f"waiting for masks of {self.path} failed"):
                self._epoll.unregister(self._event)  # the daemon may hold it too, then closing is not enough
            os.close(self._event)
            self._event = -1

    def _ended(self) -> Optional[bool]:
        """How the ring ended, None while it lives."""
        if self._closed():
            return True
        with self._own_errors(Error, f"waiting for masks of {self.path} failed"):
            # After the hello the server says nothing more: readable means end of file.
            return self._closed() if self._poll_socket(time.monotonic()) else None

    def _closed(self) -> bool:
        # The u32 `closed` shares its aligned word with reserved zeros.
        closed = self._words[RING_HEADER.fields["closed"][1] // 8] & 0xFFFFFFFF
        self._fence()
        return closed != 0

    def _copy_newest(self, deadline: Optional[float]) -> Optional[Frame]:
        """The reading half of the seqlock; crates/client/src/seqlock.rs explains the order."""
        self._drain()
        for _ in range(_COPY_ATTEMPTS):
            sequence = self._words[RING_HEADER.fields["latest"][1] // 8]
            self._fence()
            if sequence <= self._last:
                return None
            slot = self._ring["slots_offset"] + sequence % self._ring["slot_count"] * self._ring["slot_stride"]
            lock = (slot + SLOT_HEADER.fields["lock"][1]) // 8
            stable = 2 * sequence % 2**64
            if self._words[lock] == stable:
                self._fence()
                with self._own_errors(Error, f"no memory for a frame of {self.path}"):
                    header, rows, ids, picture, problem = self._copy_slot(slot, sequence)
                self._fence()
                if self._words[lock] == stable:
                    problem = problem or _check_rows(rows, ids)
                    if problem is not None:
                        raise ProtocolError(f"the mask ring of {self.path} cannot be read: {problem}")
                    if self._last:
                        self.skipped += sequence - self._last - 1
                    self._last = sequence
                    return self._build(header["info"], rows, ids, picture)
            self.retries += 1
            if deadline is not None and time.monotonic() >= deadline:
                break
        return None

    def _fence(self) -> None:
        """A memory barrier: loads before it happen before loads after it, which aarch64 does not do by itself.

        Releasing a lock keeps earlier loads before it (release), taking it keeps later ones behind it (acquire), and the second
        taking cannot overtake the release that it depends on. One acquire-release pair would not do: both sides may slip *into*
        a critical section and pass each other there. The lock is private, so it never waits.
        """
        self._fence_lock.acquire()
        self._fence_lock.release()
        self._fence_lock.acquire()
        self._fence_lock.release()

    def _copy_slot(self, slot: int, sequence: int):
        ring = self._ring
        header_bytes = bytes(self._map[slot:slot + _slot_header_bytes(ring)]).ljust(SLOT_HEADER.itemsize, b"\0")
        header = np.frombuffer(bytearray(header_bytes), SLOT_HEADER)[0]
        info = header["info"]
        width, height, count = int(info["width"]), int(info["height"]), int(info["segment_count"])
        has_frame = bool(int(info["flags"]) & SLOT_HAS_FRAME)
        if int(header["magic"]) != SLOT_MAGIC or int(header["abi_version"]) != ring["abi_version"] or int(info["sequence"]) != sequence:
            return header, None, None, None, f"the slot of frame {sequence} is not one"
        if not (1 <= width <= ring["max_width"] and 1 <= height <= ring["max_height"] and count <= ring["max_segments"]) or (
                has_frame and not ring["frame_offset"]):
            return header, None, None, None, f"frame {sequence} claims {width}x{height} with {count} segments"
        if ring["abi_version"] == 1:
            info["stamp_ns"] = info["dropped_busy"] = 0  # reserved words there
            if has_frame:
                info["frame_format"], info["frame_stride"] = int.from_bytes(b"RGB3", "little"), 3 * width
                info["frame_bytes"] = 3 * width * height
        picture_bytes = int(info["frame_bytes"])
        if not _picture_fits(info, has_frame, ring["slot_stride"] - ring["frame_offset"]):
            return header, None, None, None, (f"frame {sequence} claims a picture of {picture_bytes} bytes in rows of "
                                              f"{info['frame_stride']}, which {width}x{height} pixels in this ring cannot have")

        def area(offset, dtype, shape):
            items = int(np.prod(shape))
            view = np.frombuffer(self._map, dtype, items, slot + offset)
            return view.reshape(shape).copy()

        # A later daemon's rows may have more columns than we know.
        rows = area(ring["table_offset"], "u1", (count, ring["row_bytes"]))[:, :SEGMENT_ROW.itemsize] if count else b""
        rows = np.frombuffer(bytes(rows), SEGMENT_ROW)
        ids = area(ring["ids_offset"], "<u2", (height, width))
        picture = area(ring["frame_offset"], "u1", (picture_bytes,)) if picture_bytes else np.empty(0, "u1") if has_frame else None
        return header, rows, ids, picture, None

    def _build(self, info, rows, ids, picture) -> Frame:
        flags = int(info["flags"])
        frame_format = None if picture is None else _fourcc(info)
        rgb = picture.reshape(*ids.shape, 3) if frame_format == "RGB3" else None
        colour = int(info["frame_colour"])
        checksum_ok = None
        if flags & SLOT_HAS_CHECKSUM:
            crc = zlib.crc32(ids, zlib.crc32(rows.tobytes()))
            crc = crc if picture is None else zlib.crc32(picture, crc)
            checksum_ok = crc == int(info["checksum"])
        return Frame(
            sequence=int(info["sequence"]), frame_sequence=int(info["frame_sequence"]), captured_ns=int(info["captured_ns"]),
            published_ns=int(info["published_ns"]), dropped=int(info["dropped"]), source_id=int(info["source_id"]),
            model_hash=bytes(info["model_hash"]), stage_us=tuple(int(us) for us in info["stage_us"]),
            stale=bool(flags & SLOT_STALE), no_signal=bool(flags & SLOT_NO_SIGNAL), truncated=bool(flags & SLOT_TRUNCATED),
            segments=[self._segment(row) for row in rows], ids=ids, rgb=rgb, labels=self.labels, checksum_ok=checksum_ok,
            drops=Drops(int(info["dropped"]), int(info["dropped_busy"]), int(info["dropped_source"]), int(info["dropped_corrupt"])),
            failed=int(info["failed"]), stamp_ns=int(info["stamp_ns"]) or None, frame_format=frame_format,
            frame_stride=int(info["frame_stride"]), frame_bytes=picture, frame_bt709=bool(colour & FRAME_BT709),
            frame_full_range=bool(colour & FRAME_FULL_RANGE),
        )

    def _segment(self, row) -> Segment:
        category = int(row["class"])
        return Segment(
            id=int(row["id"]), category_id=category, label=self.labels[category] if category < len(self.labels) else None,
            score=float(row["score"]), area=int(row["area"]), bbox=tuple(int(edge) for edge in row["bbox"]),
            track_id=int(row["track_id"]),
        )


def _receive(connection: socket.socket, fds: List[int]):
    """One message and its flags; the descriptors that came with it are the caller's from the start, so that it closes them in any case."""
    data, ancillary, flags, _address = connection.recvmsg(HELLO.itemsize, socket.CMSG_SPACE(4 * _FDS_MAX), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(array.array("i", content[:len(content) - len(content) % 4]))
    return data, flags


def _slot_header_bytes(ring: dict) -> int:
    return SLOT_HEADER_BYTES_V1 if ring["abi_version"] == 1 else SLOT_HEADER.itemsize


def _fourcc(info) -> str:
    """The letters of a frame's format, without the spaces at their end; what is no letter is a question mark."""
    letters = int(info["frame_format"]).to_bytes(4, "little").rstrip(b" ")
    return "".join(chr(byte) if 0x20 < byte < 0x7F else "?" for byte in letters)


def _picture_fits(info, has_frame: bool, room: int) -> bool:
    """Whether the camera frame lies in its area and has the bytes that its format gives it: programs index it by its size."""
    count, stride, width, height = (int(info[name]) for name in ("frame_bytes", "frame_stride", "width", "height"))
    name = _fourcc(info)
    if not has_frame:
        return count == 0
    if name in _SIZES:
        of_row, of_frame = _SIZES[name]
        if stride != of_row(width) or count != of_frame(width, height):
            return False
    return count <= room and (name != "MJPG" or stride == 0)


def _check_rows(rows: np.ndarray, ids: np.ndarray) -> Optional[str]:
    """What is wrong with the rows of a whole frame: programs index the id map by their boxes."""
    height, width = ids.shape
    box = rows["bbox"].astype(np.uint64)
    right, bottom = box[:, 0] + box[:, 2], box[:, 1] + box[:, 3]
    wrong = (right > width) | (bottom > height) | (rows["area"] > width * height) | (rows["id"] == 0) | ~np.isfinite(rows["score"])
    if not wrong.any():
        return None
    row = rows[np.argmax(wrong)]
    return (f"a frame of {width}x{height} has a segment of id {row['id']}, score {row['score']}, box {row['bbox'].tolist()} and area "
            f"{row['area']}, which no frame can have")


def _plain(text: str) -> str:
    """A text of the daemon's as a terminal may see it."""
    text = text if len(text) <= 200 else text[:200] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _check_ring(ring: dict, size: int) -> Optional[str]:
    """What is wrong with a ring's header, None if all that it describes lies inside of ``size`` bytes."""
    if ring["magic"] != RING_MAGIC or not ABI_OLDEST <= ring["abi_version"] <= ABI_VERSION:
        return f"magic {ring['magic']:#x}, ABI {ring['abi_version']}; this client reads ABI {ABI_OLDEST} to {ABI_VERSION}"
    if not SEGMENT_ROW.itemsize <= ring["row_bytes"] <= MAX_ROW_BYTES or ring["row_bytes"] % 8:
        return f"its header speaks of rows of {ring['row_bytes']} bytes, no multiple of 8 from {SEGMENT_ROW.itemsize} to {MAX_ROW_BYTES}"
    if not (MIN_SLOTS <= ring["slot_count"] <= MAX_SLOTS and 1 <= ring["max_width"] <= MAX_SIDE
            and 1 <= ring["max_height"] <= MAX_SIDE and ring["max_segments"] <= MAX_SEGMENTS):
        return "its slots are beyond the limits"

    def padded(count: int) -> int:
        return (count + 63) // 64 * 64

    pixels = ring["max_width"] * ring["max_height"]
    frame, stride, slots = ring["frame_offset"], ring["slot_stride"], ring["slots_offset"]
    ids_end = ring["ids_offset"] + padded(2 * pixels)
    if ring["total_bytes"] != size or max(ring["labels_bytes"], ring["metadata_bytes"]) > MAX_TEXT_BYTES:
        return f"its header speaks of {ring['total_bytes']} bytes with {ring['labels_bytes']} of labels, its memory has {size}"
    blobs = [(ring["labels_offset"], ring["labels_bytes"]), (ring["metadata_offset"], ring["metadata_bytes"])]
    aligned = not any(at % 8 for at, _ in blobs) and not any(at % 64 for at in (slots, stride, ring["table_offset"], ring["ids_offset"], frame))
    ordered = (
        ring["header_bytes"] >= RING_HEADER.itemsize
        and all(at >= ring["header_bytes"] and at + length <= slots for at, length in blobs)
        and ring["table_offset"] >= _slot_header_bytes(ring)
        and ring["ids_offset"] >= ring["table_offset"] + ring["max_segments"] * ring["row_bytes"]
        and stride >= ids_end
        and (frame == 0 or (frame >= ids_end and stride >= frame + padded(3 * pixels)))
        and slots + stride * ring["slot_count"] <= size
    )
    return None if aligned and ordered else "its header describes areas outside of it"


def _deadline(timeout: Optional[float]) -> Optional[float]:
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: Optional[float]) -> Optional[float]:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _line(frame: Frame, skipped: int, as_json: bool) -> str:
    if not as_json:
        segments = ", ".join(f"{_plain(s.label or str(s.category_id))} {s.score:.2f}" for s in frame.segments)
        return f"{frame.sequence}: {frame.width}x{frame.height}, {len(frame.segments)} segments: {segments}"
    return json.dumps({
        "sequence": frame.sequence, "frame_sequence": frame.frame_sequence, "captured_ns": frame.captured_ns,
        "published_ns": frame.published_ns, "dropped": frame.dropped, "width": frame.width, "height": frame.height,
        "source_id": frame.source_id, "stale": frame.stale, "no_signal": frame.no_signal, "truncated": frame.truncated,
        "stage_us": frame.stage_us, "model_hash": frame.model_hash.hex(), "ids_crc32": zlib.crc32(frame.ids),
        "frame_crc32": None if frame.frame_bytes is None else zlib.crc32(frame.frame_bytes), "stamp_ns": frame.stamp_ns or 0,
        "dropped_busy": frame.drops.busy, "dropped_source": frame.drops.source, "dropped_corrupt": frame.drops.corrupt,
        "failed": frame.failed, "frame_format": frame.frame_format, "frame_stride": frame.frame_stride,
        "frame_bytes": 0 if frame.frame_bytes is None else frame.frame_bytes.size, "checksum_ok": frame.checksum_ok, "skipped": skipped,
        "segments": [asdict(segment) for segment in frame.segments],
    })


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="eomt_edge_client", description="Print what an eomt-edge daemon publishes.")
    parser.add_argument("--socket", default=DEFAULT_SOCKET, metavar="PATH")
    parser.add_argument("--frames", type=int, metavar="N", help="end after N frames (default: never)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="give up when connecting and the first frame take so long, or a later frame")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args(arguments)
    received = 0
    deadline = _deadline(options.timeout)
    try:
        with Subscriber(options.socket, timeout=options.timeout) as masks:
            while options.frames is None or received < options.frames:
                frame = masks.next(_left(deadline))
                if frame is None:
                    raise TimedOut(f"no frame from {options.socket} within {options.timeout} s")
                print(_line(frame, masks.skipped, options.json), flush=True)
                received += 1
                deadline = _deadline(options.timeout)
    except Error as error:
        print(f"eomt_edge_client: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        # Python flushes stdout once more at exit, which must not fail loudly on a closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
