"""soak.py FRAMES: the daemon at full speed until it has published so many frames; standard library and numpy.

    the source   exec: a command that gives frames for 20 seconds, a fifth more than the machine can take, and ends, every third time in the
                 middle of a frame; the daemon starts it again. It writes down what it gave. At the end other sources take its place
    readers      one reads all the while and counts; one was stopped (SIGSTOP) at the start; others come, read a little and go, or are killed; a cheat
                 tries to write to what it was given, to shrink it, to map it for writing, to make its descriptors block, and sends rubbish
    reloads      every few seconds: thresholds, a broken configuration, a model that is cut off, one that is not there

soak-output/samples.tsv has one line a second: seconds, published frames, resident KiB, descriptors, threads. It fails when one of these grows, when
the daemon's published, dropped and failed frames are not exactly what the source gave, or when the reader's own account differs.
"""
import fcntl
import json
import mmap
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "clients", "python"))  # (in the device test both stand in one folder)
import eomt_edge_client as client  # noqa: E402

PROGRAM = os.path.join(ROOT, "target/release/eomt-edge")
SIDE, SERIES_SECONDS = 32, 20
PATIENCE = 120


def cheat(path, seconds):
    """What a reader must not be able to do, as often as it can; everything is refused or changes nothing for others."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(path)
            connection.settimeout(5)
            _, descriptors, _, _ = socket.recv_fds(connection, 65536, 8)
        except OSError:
            connection.close()
            time.sleep(0.05)
            continue
        for descriptor in descriptors:
            for attempt in (lambda: os.ftruncate(descriptor, 0), lambda: os.pwrite(descriptor, bytes(64), 0),
                            lambda: mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE),
                            lambda: fcntl.fcntl(descriptor, 1033, 0x10),  # F_ADD_SEALS, F_SEAL_FUTURE_WRITE
                            lambda: fcntl.fcntl(descriptor, fcntl.F_SETFL, 0), lambda: os.lseek(descriptor, 1 << 40, 0)):
                try:
                    attempt()
                except (OSError, ValueError):
                    pass
        trick = random.randrange(4)
        try:
            if trick == 0:
                connection.send(bytes(random.randrange(1, 4096)))  # the protocol knows no messages from readers
            elif trick == 1:
                connection.shutdown(socket.SHUT_RDWR)
            elif trick == 2:
                time.sleep(0.2)  # reads nothing, wakes up for nothing
        except OSError:
            pass
        for descriptor in descriptors:
            os.close(descriptor)
        connection.close()


def camera(run, pace):
    """Waits for `go`, then gives frames for a while; nothing more once there is `enough`."""
    exists, ledger = (lambda name: os.path.exists(os.path.join(run, name))), os.path.join(run, "ledger")
    while not exists("go") or exists("enough"):
        time.sleep(0.05)
    broken = sum(1 for _ in open(ledger)) % 3 == 2
    frame, given, start, output = bytes(SIDE * SIDE * 3), 0, time.monotonic(), sys.stdout.buffer
    while time.monotonic() < start + SERIES_SECONDS and not exists("enough"):
        due = int((time.monotonic() - start) * pace) + 1
        while given < due:
            output.write(frame)
            given += 1
        output.flush()
        time.sleep(0.5 / pace)
    output.write(frame[:1000 * broken])
    output.flush()
    print(given + broken, file=open(ledger, "a"), flush=True)


def steady(path):
    """Reads to the end; prints frames received, skipped, and the last frame's number and losses."""
    received, last = 0, (0, 0)
    with client.Subscriber(path, timeout=PATIENCE) as masks:
        print("connected", flush=True)
        try:
            for frame in masks:
                received += not frame.no_signal
                last = (frame.frame_sequence, frame.dropped)
        except (client.Ended, TimeoutError):
            pass
        print(received, masks.skipped, *last, flush=True)


class Soak:
    def __init__(self, frames, run):
        self.frames, self.run, self.out = frames, run, os.path.join(ROOT, "soak-output")
        self.socket, self.config, self.ledger = (os.path.join(run, name) for name in ("masks.sock", "config.toml", "ledger"))
        self.model = os.path.join(run, "small.onnx")
        self.children, self.readers, self.reloads, self.started = [], {}, 0, time.monotonic()
        os.makedirs(self.out, exist_ok=True)
        self.log = open(os.path.join(self.out, "daemon.log"), "a+")
        self.log.truncate(0)

    def prepare(self):
        subprocess.run([PROGRAM, "convert", os.path.join(ROOT, "tests/data/nano"), "--size", str(SIDE), "--no-check", "-o", self.model], check=True,
                       stdout=subprocess.DEVNULL)
        whole = open(self.model, "rb").read()
        open(os.path.join(self.run, "cut.onnx"), "wb").write(whole[:len(whole) // 2])
        bench = subprocess.run([PROGRAM, "bench", "--model", self.model, "--frames", "300", "--json"], check=True, capture_output=True)
        self.pace = 1.2e3 / json.loads(bench.stdout)["total"]["median_ms"]
        open(self.ledger, "w").close()
        self.configure()

    def camera(self):
        return f"exec:{sys.executable} {os.path.abspath(__file__)} --camera {self.run} {self.pace:.0f}"

    def configure(self, model=None, source=None, more=""):
        source = source or self.camera()
        text = (f'[model]\npath = "{model or self.model}"\nthreshold = {random.choice([0.3, 0.5, 0.7])}\n[source]\nuri = "{source}"\n'
                f'size = "{SIDE}x{SIDE}"\nno_signal_after = 0.5\n[ring]\nsocket = "{self.socket}"\n{more}')
        open(self.config + ".new", "w").write(text)
        os.rename(self.config + ".new", self.config)

    def start(self):
        environment = dict(os.environ, RUST_LOG="info", TMPDIR=self.run)
        self.daemon = subprocess.Popen([PROGRAM, "run", "--config", self.config], stderr=self.log, env=environment)
        self.children.append(self.daemon)
        self.until(lambda: os.path.exists(self.socket), "a socket")
        self.counter = self.reader("steady", stdout=subprocess.PIPE, text=True)
        assert self.counter.stdout.readline() == "connected\n"
        # (it stands still with all that it was given)
        sleeper = self.reader("steady", stdout=subprocess.DEVNULL)
        time.sleep(1)
        sleeper.send_signal(signal.SIGSTOP)
        open(os.path.join(self.run, "go"), "w").close()

    def reader(self, *role, **more):
        process = subprocess.Popen([sys.executable, __file__, "--" + role[0], self.socket, *role[1:]], stderr=subprocess.DEVNULL, **more)
        self.children.append(process)
        return process

    def until(self, condition, what):
        end = time.monotonic() + PATIENCE
        while not condition():
            self.check_alive()
            if time.monotonic() > end:
                sys.exit(f"soak: {what} does not come")
            time.sleep(0.05)

    def check_alive(self):
        if self.daemon.poll() is not None:
            self.log.seek(0)
            sys.exit("soak: the daemon has ended:\n" + self.log.read()[-2000:])

    def given(self):
        return sum(int(line) for line in open(self.ledger))

    def published(self):
        """Number of the newest frame, and its losses."""
        with client.Subscriber(self.socket, timeout=PATIENCE) as masks:
            frame = next(masks)
            return frame.frame_sequence - frame.dropped

    def sample(self, file):
        status = open(f"/proc/{self.daemon.pid}/status").read()
        resident, threads = (int(re.search(rf"^{name}:\s*(\d+)", status, re.M)[1]) for name in ("VmRSS", "Threads"))
        row = (int(time.monotonic() - self.started), self.published(), resident, len(os.listdir(f"/proc/{self.daemon.pid}/fd")), threads)
        print(*row, sep="\t", file=file, flush=True)
        return row

    def disturb(self, second):
        """Readers and reloads of one second."""
        for name in ("come", "killed", "cheat"):
            old = self.readers.get(name)
            if old and old.poll() is None and (name != "killed" or second % 3):
                continue
            if old:
                old.kill()
                old.wait()
                self.children.remove(old)
            role = {"come": ("come",), "killed": ("steady",), "cheat": ("cheat",)}[name]
            self.readers[name] = self.reader(*role, stdout=subprocess.DEVNULL)
        if second % 5 == 2:
            case = self.reloads % 4
            self.configure(**[{}, {"more": "nonsense = 1\n"}, {"model": os.path.join(self.run, "cut.onnx")}, {"model": "/nowhere.onnx"}][case])
            self.daemon.send_signal(signal.SIGHUP)
            self.reloads += 1

    def finish_series(self):
        open(os.path.join(self.run, "enough"), "w").close()
        before = -1
        while self.given() != before:  # a series in work is written down when all of it has been read
            before = self.given()
            time.sleep(5)
            self.check_alive()

    def other_sources(self):
        """Another daemon: each source is closed and the next one takes its place. Descriptors and threads with the first source, and with it again
        after all the others."""
        kinds = [self.camera(), f"replay:{ROOT}/tests/data/clip@0", "scenes", "exec:sleep 1000", f"v4l2:{self.run}/video7"]
        self.configure()
        self.log.truncate(0)
        self.daemon = subprocess.Popen([PROGRAM, "run", "--config", self.config], stderr=self.log, env=dict(os.environ, RUST_LOG="info"))
        self.children.append(self.daemon)
        self.until(lambda: os.path.exists(self.socket), "a socket")
        counts = []
        for turn in range(4 * len(kinds) + 1):
            said = open(self.log.name).read().count("was read again")
            self.configure(source=kinds[turn % len(kinds)])
            self.daemon.send_signal(signal.SIGHUP)
            self.until(lambda: open(self.log.name).read().count("was read again") > said, f"the source {kinds[turn % len(kinds)]}")
            time.sleep(1)
            if turn % len(kinds) == 0:
                counts.append((len(os.listdir(f"/proc/{self.daemon.pid}/fd")), len(os.listdir(f"/proc/{self.daemon.pid}/task"))))
        self.end()
        return counts

    def end(self):
        self.daemon.terminate()
        code = self.daemon.wait(PATIENCE)
        text = open(self.log.name).read()
        counted = re.findall(r"(\d+) frames in .* (\d+) dropped, (\d+) failed", text)
        return code, tuple(map(int, counted[-1])) if counted else None

    def clean(self):
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.kill()
                child.wait()


def growth(rows):
    """Medians of the first and the last fifth of the second half, since a single sample may fall into a reload."""
    half = rows[len(rows) // 2:]
    few = max(5, len(half) // 5)
    median = lambda part, column: sorted(row[column] for row in part)[len(part) // 2]
    return [(median(half[:few], column), median(half[-few:], column)) for column in (2, 3, 4)]


def main(frames):
    with tempfile.TemporaryDirectory() as run:
        soak = Soak(frames, run)
        try:
            soak.prepare()
            soak.start()
            rows, second = [], 0
            with open(os.path.join(soak.out, "samples.tsv"), "w") as file:
                while not rows or rows[-1][1] < frames:
                    time.sleep(1)
                    soak.check_alive()
                    second += 1
                    soak.disturb(second)
                    rows.append(soak.sample(file))
            for name in soak.readers:
                soak.readers[name].kill()
            soak.finish_series()
            given, (code, counted) = soak.given(), soak.end()
            received, skipped, _, _ = map(int, soak.counter.communicate(timeout=PATIENCE)[0].split())
            sources = soak.other_sources()
            seconds = time.monotonic() - soak.started
            memory, descriptors, threads = growth(rows)
            print(f"soak: {counted[0]} frames published in {seconds:.0f} s, {counted[1]} dropped, {counted[2]} failed; the source gave {given}; "
                  f"{soak.reloads} reloads")
            print(f"soak: a reader received {received} and skipped {skipped} publications")
            print(f"soak: 20 changes of the source: descriptors {sources[1][0]} then {sources[-1][0]}, threads {sources[1][1]} then {sources[-1][1]}")
            print("soak: resident %d then %d KiB, descriptors %d then %d, threads %d then %d" % (*memory, *descriptors, *threads))
            wrong = []
            if code != 0:
                wrong.append(f"the daemon ended with {code}")
            if sum(counted) != given:
                wrong.append(f"published, dropped and failed are {sum(counted)}")
            if received + skipped < counted[0]:  # "no signal" is a publication too, and may be skipped
                wrong.append(f"the reader knows of {received + skipped} publications only")
            # a reload frees and takes tens of MiB, which leaves gaps in the allocator
            if memory[1] - memory[0] > 4096:
                wrong.append("memory grows")
            # readers come and go, and so does the thread that reads what the command says
            if descriptors[1] > descriptors[0] + 4 or threads[1] > threads[0] + 1:
                wrong.append("descriptors or threads grow")
            if sources[1] != sources[-1]:
                wrong.append("descriptors or threads grow as sources change")
            sys.exit("soak: " + "; ".join(wrong) if wrong else 0)
        finally:
            soak.clean()


if __name__ == "__main__":
    if sys.argv[1] == "--steady":
        steady(sys.argv[2])
    elif sys.argv[1] == "--camera":
        camera(sys.argv[2], float(sys.argv[3]))
    elif sys.argv[1] == "--come":
        with client.Subscriber(sys.argv[2], timeout=PATIENCE) as few:
            [next(few) for _ in range(random.randrange(1, 200))]
    elif sys.argv[1] == "--cheat":
        cheat(sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 60)
    else:
        main(int(sys.argv[1]))
