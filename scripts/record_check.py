"""Recordings of a real daemon in the hands of other people's readers. See record-check.sh, which starts this in a mount namespace."""
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import mcap
import numpy as np
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from PIL import Image
from rerun.chunk import RrdReader
from rosbags.highlevel import AnyReader, AnyReaderError

root = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root / "clients/python"))
from eomt_edge_client import Subscriber  # noqa: E402

DAEMON, BRIDGE = os.environ["EOMT_EDGE"], os.environ["EOMT_EDGE_BRIDGE"]
MODEL = str(root / "models/eomt-nano-scenes.onnx")
PREFIX = "/eomt_edge"
RERUN = [sys.executable, "-m", "rerun_cli"]
failed = 0
started = []


def check(name, good, detail=""):
    global failed
    failed += not good
    print("ok  " if good else "FAIL", name, detail, flush=True)


class Daemon:
    """eomt-edge on procedural scenes, and what its ring's Python client sees meanwhile."""

    def __init__(self, directory, name="masks", *settings):
        self.socket = f"{directory}/{name}.sock"
        keys = [f"ring.socket={self.socket}", "ring.include_frame=true", "source.fps=15", *settings]
        self.config = pathlib.Path(f"{directory}/{name}.toml")
        self.config.write_text("")
        self.arguments = [DAEMON, "run", "--config", str(self.config), "--source", "scenes:3", "--model", MODEL]
        self.arguments += [word for key in keys for word in ("--set", key)]
        self.log = open(f"{directory}/{name}.log", "w")
        self.seen = {}
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.arguments, stderr=self.log)
        started.append(self.process)
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def watch(self):
        until = time.monotonic() + 120
        while not os.path.exists(self.socket) and time.monotonic() < until:
            time.sleep(0.05)
        # the wall clock's time of the monotonic clock's zero
        offset = time.time_ns() - time.monotonic_ns()
        try:
            with Subscriber(self.socket) as masks:
                for frame in masks:
                    if not frame.no_signal:
                        rows = [(row.id, row.label, row.score, row.bbox) for row in frame.segments]
                        stamp = frame.captured_ns + offset
                        self.seen[(self.process.pid, frame.sequence)] = (np.array(frame.ids), np.array(frame.rgb), rows, stamp)
        except Exception as error:  # the daemon's end, on purpose or not: the checks tell
            self.end = error

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.watcher.join()


def record(socket, out, *options, wait=True):
    """A recorder; `wait`: until it has ended by itself."""
    log = open(f"{out}.log", "a+")  # appended: the child shares our offset
    if "--min-free" not in options:
        options = (*options, "--min-free", "1M")
    process = subprocess.Popen([BRIDGE, "record", str(out), "--socket", socket, *options], stderr=log, stdout=log)
    process.log = log
    started.append(process)
    if wait:
        process.wait(timeout=300)
    return process


def words(process):
    process.log.seek(0)
    return process.log.read()


def until(what, condition, seconds=120):
    """Waits for a condition, not for a time; fails the check after a long one."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            check(f"waited for {what}", False)
            return False
        time.sleep(0.05)
    return True


def messages(path):
    """By mcap and mcap-ros2-support: {topic: [(message, decoded)]}, and the metadata records."""
    found, metadata = {}, []
    with open(path, "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()], validate_crcs=True)
        for _schema, channel, message, decoded in reader.iter_decoded_messages():
            found.setdefault(channel.topic, []).append((message, decoded))
        metadata = [record.metadata for record in reader.iter_metadata() if record.name == "eomt-edge"]
    return found, metadata


def ns(stamp):
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def png(message):
    return np.asarray(Image.open(io.BytesIO(bytes(message.data)))).astype(np.uint16)


def rosbags_counts(path):
    counts = {}
    with AnyReader([path]) as reader:
        for connection, _timestamp, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            assert message.__msgtype__ == connection.msgtype
            counts[connection.topic] = counts.get(connection.topic, 0) + 1
    return counts


def node(path):
    out = subprocess.run(["node", str(root / "scripts/record_check.mjs"), str(path)], capture_output=True, text=True)
    if out.returncode:
        check("@mcap/core reads it", False, out.stderr[-500:])
        return {"topics": {}, "boxes": 0, "last": None, "metadata": []}
    return json.loads(out.stdout)


def same_counts(name, path, found):
    """All four readers find the same messages."""
    counts = {topic: len(rows) for topic, rows in found.items()}
    check(f"{name}: rosbags reads every message", rosbags_counts(path) == counts, counts)
    js = node(path)
    check(f"{name}: @mcap/core reads every message", js["topics"] == counts, js["topics"])
    return js


def whole(directory, daemon):
    """One recording with everything, ended by SIGTERM."""
    out = directory / "whole.mcap"
    recorder = record(daemon.socket, out, "--camera", "raw", "--overlay", wait=False)
    until("a second's frames on the disk", lambda: out.exists() and out.stat().st_size > 4_000_000)
    recorder.send_signal(signal.SIGTERM)
    recorder.wait(timeout=60)
    check("SIGTERM ends a recording in good order", recorder.returncode == 0, words(recorder)[-300:])
    found, metadata = messages(out)
    masks = found[f"{PREFIX}/panoptic/compressed"]
    check("frames are recorded", len(masks) >= 5, len(masks))
    pid = daemon.process.pid
    both = [(message, decoded, daemon.seen[(pid, message.sequence)]) for message, decoded in masks if (pid, message.sequence) in daemon.seen]
    check("the ring's client saw most of them", len(both) * 2 > len(masks), f"{len(both)} of {len(masks)}")
    check("id maps are the ring's", all(np.array_equal(png(decoded), seen[0]) for _, decoded, seen in both))
    check("a mono16 PNG says so", all(decoded.format == "mono16; png compressed " for _, decoded in masks))
    off = [abs(ns(decoded.header.stamp) - seen[3]) for _, decoded, seen in both]
    check("stamps are the capture's", max(off) < 50_000_000, f"at most {max(off) / 1e6:.3f} ms beside the client's")
    check("log times are the stamps", all(message.log_time == ns(decoded.header.stamp) for message, decoded in masks))
    check("published after that", all(message.publish_time >= message.log_time for message, _ in masks))
    stamps = [message.log_time for message, _ in masks]
    check("in order", stamps == sorted(stamps) and len(set(stamps)) == len(stamps))
    camera = {message.sequence: decoded for message, decoded in found[f"{PREFIX}/image"]}
    check("camera frames are the ring's", all(
        np.array_equal(np.frombuffer(bytes(camera[message.sequence].data), np.uint8).reshape(seen[1].shape), seen[1]) for message, _, seen in both))
    overlay = found[f"{PREFIX}/overlay/compressed"][0][1]
    check("the overlay is a picture", Image.open(io.BytesIO(bytes(overlay.data))).size == (320, 240))
    labels = found[f"{PREFIX}/label_info"][0][1]
    names = [entry.class_name for entry in labels.class_map]
    check("labels are recorded before the first frame", found[f"{PREFIX}/label_info"][0][0].log_time <= stamps[0] and len(names) >= 9, names)
    check("metadata names the model", metadata and metadata[0]["name"] and len(metadata[0]["model_sha256_begin"]) == 32, metadata and metadata[0])
    js = same_counts("whole", out, found)
    rows = sum(len(seen[2]) for _, _, seen in both)
    check("Foxglove's annotations have a box for each segment", js["boxes"] >= rows > 0, js["boxes"])
    last = js["last"]
    sample = [seen for message, _, seen in both if str(message.log_time) == last["log_time"]]
    if sample:
        corners = [[(point["x"], point["y"]) for point in shape["points"]] for shape in last["points"]]
        boxes = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h)] for _, _, _, (x, y, w, h) in sample[0][2]]
        check("and at its place", corners == boxes)
        texts = [text["text"] for text in last["texts"]]
        check("with name and score", texts == [f"{label} {score:.2f}" for _, label, score, _ in sample[0][2]], texts)
    rerun(directory, out, found)
    recipes(directory, out, found)


def rerun(directory, path, found):
    """Rerun's own importer."""
    rrd = directory / "whole.rrd"
    done = subprocess.run([*RERUN, "mcap", "convert", str(path), "-o", str(rrd)], capture_output=True, text=True)
    check("Rerun loads it without an error", done.returncode == 0 and "ERROR" not in done.stderr, done.stderr[-400:])
    done = subprocess.run([*RERUN, "mcap", "check", str(path)], capture_output=True, text=True)
    check("rerun mcap check", done.returncode == 0, (done.stdout + done.stderr)[-400:])
    done = subprocess.run([*RERUN, "rrd", "verify", str(rrd)], capture_output=True, text=True)
    check("rerun rrd verify", done.returncode == 0, done.stderr[-300:])
    counts = rows(rrd)
    wanted = {topic: len(messages) for topic, messages in found.items()}
    check("Rerun has a row for each message", all(counts.get(topic) == count for topic, count in wanted.items()), counts)


def rows(rrd):
    """Rows of each entity with time."""
    counts = {}
    for chunk in RrdReader(str(rrd)).stream():
        counts[str(chunk.entity_path)] = counts.get(str(chunk.entity_path), 0) + (0 if chunk.is_static else chunk.num_rows)
    return counts


def recipes(directory, path, found):
    """The Python program of docs/recordings.md, as it stands there."""
    text = (root / "docs/recordings.md").read_text()
    program = re.search(r"```python\n(# masks_to_rerun.py.*?)```", text, re.S).group(1)
    (directory / "masks_to_rerun.py").write_text(program)
    rrd = directory / "recipe.rrd"
    done = subprocess.run([sys.executable, directory / "masks_to_rerun.py", path, rrd], capture_output=True, text=True)
    check("the recipe for Rerun runs", done.returncode == 0 and rrd.stat().st_size > 0, done.stderr[-500:])
    check("and has every frame", rows(rrd).get("/camera/masks") == len(found[f"{PREFIX}/panoptic/compressed"]), rows(rrd))


def killed(directory, daemon):
    """kill -9: refused by readers without help, whole again after `recover`."""
    out = directory / "killed.mcap"
    recorder = record(daemon.socket, out, wait=False)
    until("some chunks", lambda: out.exists() and out.stat().st_size > 300_000)
    recorder.kill()
    recorder.wait()
    size = out.stat().st_size
    cuts = {"as it was left": size, "in the last chunk": size - 700, "in the middle": size // 2, "after two fifths": size * 2 // 5}
    for name, at in cuts.items():
        cut, again = directory / "cut.mcap", directory / "again.mcap"
        again.unlink(missing_ok=True)
        cut.write_bytes(out.read_bytes()[:at])
        refused = []
        for reader, read, error in [("mcap", messages, mcap.exceptions.McapError), ("rosbags", rosbags_counts, AnyReaderError)]:
            try:
                read(cut)
            except error:
                refused.append(reader)
        done = subprocess.run([BRIDGE, "recover", cut, again], capture_output=True, text=True)
        check(f"cut {name}: recover", done.returncode == 0, (done.stdout + done.stderr).strip())
        found, metadata = messages(again)
        masks = found[f"{PREFIX}/panoptic/compressed"]
        sequences = [message.sequence for message, _ in masks]
        check(f"cut {name}: what others refuse is read then", len(masks) > 0 and metadata and len(refused) == 2, f"{len(masks)} frames, {refused}")
        good = [np.array_equal(png(decoded), daemon.seen[(daemon.process.pid, message.sequence)][0])
                for message, decoded in masks if (daemon.process.pid, message.sequence) in daemon.seen]
        check(f"cut {name}: masks are the ring's, in order", all(good) and len(good) > 0 and sequences == sorted(sequences))
        same_counts(f"cut {name}", again, found)
    done = subprocess.run([BRIDGE, "recover", out, again], capture_output=True, text=True)
    check("recover writes over nothing", done.returncode == 1 and "exists" in done.stderr, done.stderr.strip())


def series(directory, daemon):
    """Rotation by size; the oldest go; a killed file of the series is repaired at the next start."""
    folder = directory / "series"
    folder.mkdir()
    out = folder / "masks.mcap"
    record(daemon.socket, out, "--max-size", "100K", "--frames", "100")
    files = sorted(folder.glob("*.mcap"))
    check("a series has several files", len(files) >= 3 and files[0].name == "masks_0001.mcap", [file.name for file in files])
    sequences = []
    for file in files:
        found, metadata = messages(file)
        sequences += [message.sequence for message, _ in found[f"{PREFIX}/panoptic/compressed"]]
        check(f"{file.name} stands alone", len(found[f"{PREFIX}/label_info"]) >= 1 and len(metadata) == 1 and file.stat().st_size < 400_000,
              file.stat().st_size)
    check("no frame is lost between files", len(sequences) == 100 and sequences == sorted(set(sequences)))
    again = record(daemon.socket, out, "--max-size", "100K", "--keep", "2", wait=False)
    until("the next files", lambda: (folder / f"masks_{len(files) + 2:04}.mcap").exists())
    rival = record(daemon.socket, out, "--max-size", "100K")
    check("a second recorder of the series is refused", rival.returncode == 1 and "another recorder" in words(rival), words(rival).strip())
    again.kill()
    again.wait()
    left = sorted(folder.glob("*.mcap"))
    check("two files are kept", len(left) == 2, [file.name for file in left])
    last = record(daemon.socket, out, "--max-size", "100M", "--keep", "3", "--frames", "5")
    check("what was killed is repaired at the next start", "written whole again" in words(last), words(last)[-300:])
    frames = [len(messages(file)[0].get(f"{PREFIX}/panoptic/compressed", [])) for file in sorted(folder.glob("*.mcap"))]
    check("and all of the series can be read", len(frames) == 3 and frames[-1] == 5, frames)


def full_disk(directory, daemon):
    """A disk with 3 MB on which something else grows."""
    disk = directory / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3M", "tmpfs", disk], check=True)
    try:
        fill(disk, daemon)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk, daemon):
    out, ballast = disk / "masks.mcap", disk / "ballast"
    recorder = record(daemon.socket, out, "--min-free", "512K", wait=False)
    until("the first chunk", lambda: out.exists() and out.stat().st_size > 5_000)
    ballast.write_bytes(bytes(2_300_000))
    until("the pause", lambda: "recording pauses" in words(recorder))
    size = out.stat().st_size
    ballast.unlink()
    until("the recording to go on", lambda: "recording goes on" in words(recorder) and out.stat().st_size > size)
    recorder.send_signal(signal.SIGTERM)
    recorder.wait(timeout=60)
    found, _ = messages(out)
    check("a full disk makes a gap, and the file is whole", recorder.returncode == 0, words(recorder)[-400:])
    same_counts("full disk", out, found)


def other_daemon(directory):
    """The daemon ends, comes back, reloads: one valid file, and each ring's labels in it."""
    daemon = Daemon(directory, "other")
    out = directory / "restarts.mcap"
    recorder = record(daemon.socket, out, wait=False)
    until("the first ring", lambda: out.exists() and out.stat().st_size > 5_000)
    daemon.stop()
    daemon.start()
    size = out.stat().st_size
    until("the second ring", lambda: out.stat().st_size > size + 10_000)
    daemon.config.write_text("[model]\nthreshold = 0.7\n")
    daemon.process.send_signal(signal.SIGHUP)
    until("the third ring", lambda: words(recorder).count("masks of") >= 3)
    size = out.stat().st_size
    until("its frames", lambda: out.stat().st_size > size + 5_000)
    recorder.send_signal(signal.SIGTERM)
    recorder.wait(timeout=60)
    daemon.stop()
    found, metadata = messages(out)
    scores = [json.loads(record["thresholds"])["score"] for record in metadata]
    check("restart and reload: one whole file, and each ring's facts", recorder.returncode == 0 and scores == [0.5, 0.5, 0.7], metadata[-1])
    check("label_info for each ring", len(found[f"{PREFIX}/label_info"]) == 3, len(found[f"{PREFIX}/label_info"]))
    same_counts("restarts", out, found)


def refusals(directory, daemon):
    existing = directory / "existing.mcap"
    existing.write_bytes(b"of somebody else")
    for name, arguments, code, word in [
        ("an existing file", [existing], 1, "exists"),
        ("another format", [directory / "x.bag"], 1, ".mcap"),
        ("no directory", [directory / "no/x.mcap"], 1, "no/x.mcap"),
        ("--keep alone", [directory / "x.mcap", "--keep", "3"], 2, "--max-time"),
        ("--max-total alone", [directory / "x.mcap", "--max-total", "1G"], 2, "--max-size"),
        ("a size of nothing", [directory / "x.mcap", "--max-size", "0"], 2, "--max-size"),
    ]:
        done = subprocess.run([BRIDGE, "record", *map(str, arguments), "--socket", daemon.socket], capture_output=True, text=True)
        check(f"refused: {name}", done.returncode == code and word in done.stderr and "panicked" not in done.stderr, done.stderr.strip()[-200:])


def main():
    only = sys.argv[1:]  # names of parts, to try one
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        os.environ["HOME"] = str(directory)  # where Rerun keeps whether it may call home
        subprocess.run([*RERUN, "analytics", "disable"], capture_output=True)
        try:
            daemon = Daemon(directory)
            for part in (whole, killed, series, full_disk, refusals):
                if not only or part.__name__ in only:
                    part(directory, daemon)
            daemon.stop()
            if not only or "other_daemon" in only:
                other_daemon(directory)
        finally:
            for process in started:
                process.kill()
    print(f"record-check: {failed} failed" if failed else "record-check: all fine")
    sys.exit(failed > 0)


main()
