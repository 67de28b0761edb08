"""A daemon made by hand: its ring says what a test wants, frame by frame. Bytes as crates/client/src/layout.rs has them (ABI 2); the daemon's own
writer has no part in it. For tests of programs that read masks."""
import ctypes
import fcntl
import os
import array
import mmap
import socket
import struct
import threading
import time

NO_SIGNAL, STALE = 2, 1
SLOTS, HEADER, ROW, SLOT_HEADER = 4, 256, 32, 256


def up(value, align):
    return -(-value // align) * align


class HandDaemon:
    """Listens on `path`; `labels` are the classes, frames have `size` (width, height)."""

    def __init__(self, path, labels, size, metadata='{"name": "by hand", "task": "instance", "program": "hand 1"}', pid=None, rows=64):
        self.size, self.rows, self.sequence = size, rows, 0
        names = b"".join(label.encode() + b"\0" for label in labels)
        text = metadata.encode()
        metadata_at = up(HEADER + len(names), 64)
        slots_at = up(metadata_at + len(text), 4096)
        self.ids_at = up(SLOT_HEADER + rows * ROW, 64)
        self.stride = up(self.ids_at + 2 * size[0] * size[1], 64)
        total = up(slots_at + SLOTS * self.stride, 4096)
        self.slots_at, self.pid = slots_at, pid or os.getpid()
        self.memory = os.memfd_create("ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, total)
        fcntl.fcntl(self.memory, 1033, 2)  # F_ADD_SEALS, F_SEAL_SHRINK
        self.map = mmap.mmap(self.memory, total)
        self.put(0, struct.pack("<8s6I10Q4I8Q", b"EOMTRING", 2, HEADER, SLOTS, rows, *size, slots_at, self.stride, total, SLOT_HEADER, self.ids_at, 0,
                                HEADER, len(names), metadata_at, len(text), len(labels), 0, self.pid, ROW, time.monotonic_ns(), *[0] * 7))
        self.put(HEADER, names)
        self.put(metadata_at, text)
        self.put(200, struct.pack("<Q", time.monotonic_ns()))
        self.total, self.path, self.clients = total, path, []
        self.wake_read, self.wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if os.path.exists(path):
            os.unlink(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(path)
        self.socket.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()

    def put(self, at, data):
        self.map[at:at + len(data)] = data

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            hello = struct.pack("<8s2I2Q2I88x", b"EOMTHELO", 2, 0, 1, self.total, self.pid, 0)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self.memory, self.wake_read]))
            try:
                client.sendmsg([hello], [rights])
                self.clients.append(client)
            except OSError:
                client.close()

    def publish(self, ids=None, segments=(), flags=0, drops=(0, 0, 0), failed=0, stages=(1000, 20000, 3000, 100), age=0.03, skip=0):
        """`ids`: bytes of the map; `segments`: (id, class, area). `skip`: so many publications before this one that nobody saw."""
        self.sequence += 1 + skip
        now = time.monotonic_ns()
        slot = self.slots_at + self.sequence % SLOTS * self.stride
        self.put(slot + 8, struct.pack("<Q", 2 * self.sequence - 1))
        info = struct.pack("<5Q6I4I16s5Q4I11Q", self.sequence, self.sequence, now - int(age * 1e9), now, sum(drops), *self.size, 7, flags, len(segments), 0,
                           *stages, bytes(range(16)), 0, *drops, failed, 0, 0, 0, 0, *[0] * 11)
        self.put(slot, struct.pack("<4sI", b"SLOT", 2))
        self.put(slot + 16, info)
        rows = [struct.pack("<2Hf4I2I", number, kind, 0.9, 0, 0, *self.size, area, 0) for number, kind, area in segments]
        self.put(slot + SLOT_HEADER, b"".join(rows))
        self.put(slot + self.ids_at, ids if ids is not None else bytes(2 * self.size[0] * self.size[1]))
        self.put(slot + 8, struct.pack("<Q", 2 * self.sequence))
        self.put(192, struct.pack("<2Q", self.sequence, now))
        try:
            os.write(self.wake, b"\0" * 8)
        except BlockingIOError:
            pass

    def end(self, clean=True):
        """Closes the ring; without `clean` the daemon is only gone."""
        if clean:
            self.put(208, struct.pack("<I", 1))
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        os.unlink(self.path)
        for client in self.clients:
            client.close()


def be_called(name):
    """This process's name, as /proc/PID/status has it."""
    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)
