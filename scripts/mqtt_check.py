"""See mqtt-check.sh."""
import atexit
import collections
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

import numpy as np

from checking import BRIDGE, Checks, Program, real_daemon, until
from hand_daemon import NO_SIGNAL, HandDaemon

check = Checks()
BASE = "eomt-edge/pi"
CONFIG = "homeassistant/device/eomt-edge-pi/config"

# Keys as Home Assistant documents them (integrations mqtt, binary_sensor.mqtt, sensor.mqtt, image.mqtt).
ANY = {"availability", "availability_mode", "enabled_by_default", "encoding", "entity_category", "entity_picture", "icon", "json_attributes_template",
       "json_attributes_topic", "name", "default_entity_id", "platform", "qos", "unique_id", "value_template"}
PLATFORMS = {
    "binary_sensor": ANY | {"device_class", "expire_after", "force_update", "off_delay", "payload_off", "payload_on", "state_topic"},
    "sensor": ANY | {"device_class", "expire_after", "force_update", "last_reset_value_template", "options", "state_class", "state_topic",
                     "suggested_display_precision", "unit_of_measurement"},
    "image": (ANY - {"value_template"}) | {"content_type", "image_encoding", "image_topic", "url_template", "url_topic"},
}
DEVICE = {"configuration_url", "connections", "hw_version", "identifiers", "manufacturer", "model", "model_id", "name", "serial_number", "suggested_area",
          "sw_version", "via_device"}
TOP = {"device", "origin", "components", "availability", "availability_mode", "qos", "encoding", "state_topic", "command_topic"}


class Broker:
    """A mosquitto of its own, with user `me`."""

    def __init__(self, directory, tls=False):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.directory, self.tls, self.starts = directory, tls, 0
        self.secret = f"{directory}/secret"
        subprocess.run(["mosquitto_passwd", "-b", "-c", self.secret, "me", "right"], check=True)
        os.chmod(self.secret, 0o644)
        lines = ["persistence false", f"password_file {self.secret}", "allow_anonymous false", "log_type all", "max_queued_messages 100000",
                 f"listener {self.port} 127.0.0.1"]
        if tls:
            lines += [f"cafile {directory}/ca.crt", f"certfile {directory}/server.crt", f"keyfile {directory}/server.key"]
        pathlib.Path(f"{directory}/mosquitto{self.port}.conf").write_text("\n".join(lines) + "\n")
        self.start()

    def start(self):
        self.starts += 1
        # mosquitto gives up root; the temporary directory is not everybody's
        os.chmod(self.directory, 0o755)
        self.program = Program(self.directory, f"mosquitto{self.port}", ["mosquitto", "-c", f"{self.directory}/mosquitto{self.port}.conf"])
        until(lambda: self.program.words().count("running") >= self.starts or self.program.process.poll() is not None)

    def login(self):
        return ["-h", "127.0.0.1", "-p", str(self.port), "-u", "me", "-P", "right", *(["--cafile", f"{self.directory}/ca.crt"] if self.tls else [])]

    def kept(self):
        """{topic: bytes} of what it retains."""
        command = ["mosquitto_sub", *self.login(), "-t", "#", "--retained-only", "-W", "1", "-F", "%t %x"]
        result = subprocess.run(command, capture_output=True, text=True)
        return {topic: bytes.fromhex(payload) for topic, _, payload in (line.partition(" ") for line in result.stdout.splitlines())}

    def watch(self, topic):
        return Watch(self, topic)

    def say(self, topic, payload):
        subprocess.run(["mosquitto_pub", *self.login(), "-t", topic, "-m", payload], check=True)


class Watch:
    """Everything that a real subscriber receives."""

    def __init__(self, broker, topic):
        self.seen = []
        command = ["mosquitto_sub", *broker.login(), "-t", topic, "-F", "%r %t %x"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            retained, topic, payload = (line.rstrip("\n") + " ").split(" ")[:3]
            self.seen.append((topic, bytes.fromhex(payload), retained == "1", time.monotonic()))

    def payloads(self, topic):
        return [payload.decode() for name, payload, _, _ in list(self.seen) if name == topic]

    def end(self):
        self.process.terminate()


def configuration(directory, broker, more="", password="right", name="mqtt"):
    pathlib.Path(f"{directory}/{name}.password").write_text(password + "\n")
    path = pathlib.Path(f"{directory}/{name}.toml")
    scheme = "mqtts" if broker.tls else "mqtt"
    path.write_text(f'broker = "{scheme}://localhost:{broker.port}"\nuser = "me"\npassword_file = "{directory}/{name}.password"\nnode = "pi"\n{more}')
    return str(path)


def bridge(directory, config, sock, name):
    return Program(directory, name, [BRIDGE, "mqtt", "--config", config, "--socket", sock])


def valid_discovery(message, kept):
    """What is wrong with it by Home Assistant's words."""
    wrong = [f"top: {key}" for key in message if key not in TOP]
    wrong += [f"device: {key}" for key in message["device"] if key not in DEVICE]
    wrong += [f"origin: {key}" for key in message["origin"] if key not in {"name", "sw_version", "support_url"}]
    if not message["device"]["identifiers"] or not message["origin"]["name"]:
        wrong.append("device needs identifiers, origin a name")
    if not {"device", "origin", "components"} <= set(message) or message["availability_mode"] not in ("all", "any", "latest"):
        wrong.append("device, origin, components, availability_mode")
    uniques = set()
    for key, component in message["components"].items():
        platform = component.get("platform")
        if platform not in PLATFORMS or not re.fullmatch("[a-zA-Z0-9_-]+", key):
            wrong.append(f"{key}: {platform}")
            continue
        wrong += [f"{key}: {name}" for name in component if name not in PLATFORMS[platform]]
        topic = component.get("image_topic" if platform == "image" else "state_topic")
        if topic not in kept:
            wrong.append(f"{key}: nothing on {topic}")
        if component["unique_id"] in uniques:
            wrong.append(f"{key}: unique_id twice")
        uniques.add(component["unique_id"])
        if component.get("device_class") not in (None, "occupancy", "connectivity") or component.get("state_class") not in (None, "measurement"):
            wrong.append(f"{key}: class")
        if component.get("entity_category") not in (None, "diagnostic"):
            wrong.append(f"{key}: category")
    for where in [*message["availability"], *message["components"]["signal"]["availability"]]:
        if not set(where) <= {"topic", "payload_available", "payload_not_available", "value_template"} or where["topic"] not in kept:
            wrong.append(f"availability: {where}")
    return wrong


class Scene:
    """A daemon by hand that publishes the same map at 50 Hz, until another is set. The picture is 8x4: columns of ids."""

    def __init__(self, path, labels):
        self.daemon = HandDaemon(path, labels, (8, 4))
        self.lock, self.running, self.state = threading.Lock(), True, ([0] * 8, [], 0)
        self.pause = 0.02
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while self.running:
            with self.lock:
                columns, classes, flags = self.state
                ids = np.tile(np.array(columns, "<u2"), (4, 1))
                segments = [(number, kind, int((ids == number).sum())) for number, kind in enumerate(classes, 1)]
                self.daemon.publish(ids.tobytes(), segments, flags)
            time.sleep(self.pause)

    def set(self, columns, classes, flags=0):
        with self.lock:
            self.state = (columns, classes, flags)

    def end(self, clean=True):
        self.running = False
        self.thread.join()
        self.daemon.end(clean)


ZONES = """
interval = 0.2
classes = []
presence = { on_after = 0.3, off_after = 0.6 }
[[zones]]
name = "Left side"
polygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
[[zones]]
name = "corner"
unit = "pixels"
polygon = [[6, 2], [8, 2], [8, 4], [6, 4]]
"""


def states(directory, broker):
    """Values, discovery, signal."""
    sock = f"{directory}/hand.sock"
    scene = Scene(sock, ["cup", "Dining table", "cup#+/"])
    scene.set([1, 1, 1, 2, 2, 0, 0, 3], [0, 1, 0])
    watch = broker.watch("#")
    config = configuration(directory, broker, ZONES, password="wrong")
    program = bridge(directory, config, sock, "bridge")
    attempts = lambda: broker.program.words().count("Sending CONNACK to 127.0.0.1 (0, 5)") + broker.program.words().count("not authorised")
    until(lambda: attempts() >= 3)
    refusals = [line for line in program.words().splitlines() if "refuses user 'me'" in line]
    check("a wrong password is one sentence over several attempts", attempts() >= 3 and len(refusals) == 1, refusals)
    configuration(directory, broker, ZONES)
    check("a right password is taken without a restart", until(lambda: "connected to the broker" in program.words()))
    expected = {
        "availability": "online", "signal": "ON", "class/cup/present": "ON", "class/cup/count": "2", "class/cup/area": "0.5",
        "class/dining_table/present": "ON", "class/dining_table/count": "1", "class/dining_table/area": "0.25",
        "class/cup_/present": "OFF", "class/cup_/count": "0", "class/cup_/area": "0",
        "zone/left_side/cup/present": "ON", "zone/left_side/cup/area": "0.75", "zone/left_side/dining_table/area": "0.25",
        "zone/corner/cup/area": "0.5", "zone/corner/cup/present": "ON", "zone/corner/dining_table/area": "0", "zone/corner/dining_table/present": "OFF",
    }

    def differs():
        kept = broker.kept()
        return {level: kept.get(f"{BASE}/{level}") for level, value in expected.items() if kept.get(f"{BASE}/{level}") != value.encode()}

    until(lambda: not differs())
    check(f"{len(expected)} values of a picture made by hand", not differs(), differs() or "")
    kept = broker.kept()
    message = json.loads(kept[CONFIG])
    wrong = valid_discovery(message, kept)
    check(f"discovery: {len(message['components'])} components by Home Assistant's documentation", not wrong and len(message["components"]) == 1 + 3 * 7, wrong)
    check("names are the model's", message["components"]["class-dining_table-present"]["name"] == "Dining table")
    count = len(watch.payloads(CONFIG))
    broker.say("homeassistant/status", "online")
    check("Home Assistant starts: it is told again", until(lambda: len(watch.payloads(CONFIG)) > count))
    for _ in range(40):
        broker.say("homeassistant/status", "online")
    broker.say("homeassistant/status", "x" * 70_000)
    check("forty starts at once are few messages", len(watch.payloads(CONFIG)) <= count + 3, len(watch.payloads(CONFIG)) - count)
    # presence flickers faster than its patience
    before = len(watch.payloads(f"{BASE}/class/cup/present"))
    for _ in range(10):
        scene.set([0] * 8, [])
        time.sleep(0.1)
        scene.set([1] * 8, [0])
        time.sleep(0.1)
    check("presence does not flutter", len(watch.payloads(f"{BASE}/class/cup/present")) == before)
    scene.set([0] * 8, [])
    check("gone: OFF", until(lambda: broker.kept()[f"{BASE}/class/cup/present"] == b"OFF"))
    scene.set([0] * 8, [], NO_SIGNAL)
    check("no signal", until(lambda: broker.kept()[f"{BASE}/signal"] == b"OFF"))
    times = [at for topic, _, retained, at in watch.seen if topic == f"{BASE}/class/cup/count" and not retained]
    gaps = [b - a for a, b in zip(times, times[1:])]
    check("numbers come once in the interval at most, but for a birth", sum(gap < 0.1 for gap in gaps) <= 3, [round(gap, 2) for gap in gaps if gap < 0.15])
    watch.end()
    return sock, scene, program, config


def restarts(directory, broker, sock, scene, program, config):
    scene.end(clean=False)
    check("the daemon dies: offline", until(lambda: broker.kept().get(f"{BASE}/availability") == b"offline"))
    scene = Scene(sock, ["Dining table", "dog"])
    scene.set([1] * 8, [1])
    check("another model: online", until(lambda: broker.kept().get(f"{BASE}/class/dog/present") == b"ON" and broker.kept().get(f"{BASE}/availability") == b"online"))
    gone = lambda: [topic for topic in broker.kept() if "/cup" in topic]
    check("topics of classes that are gone are emptied", until(lambda: not gone()), gone())
    components = json.loads(broker.kept()[CONFIG])["components"]
    check("their components are taken back", components.get("class-cup-count") == {"platform": "sensor"} and "state_topic" in components["class-dog-count"])
    program.end(signal.SIGKILL)
    check("kill -9 of the bridge: its last will says offline", until(lambda: broker.kept().get(f"{BASE}/availability") == b"offline"))
    scene.end()
    scene = Scene(sock, ["owl"])
    scene.set([1] * 8, [0])
    program = bridge(directory, config, sock, "bridge2")
    check("started again beside a third model", until(lambda: broker.kept().get(f"{BASE}/class/owl/count") == b"1"))
    gone = lambda: [topic for topic in broker.kept() if "/dog" in topic or "/dining" in topic]
    check("what the run before left is emptied", until(lambda: not gone()), gone())
    components = lambda: json.loads(broker.kept()[CONFIG])["components"]
    check("and taken back", until(lambda: components().get("class-dog-count") == {"platform": "sensor"}), list(components()))
    check("but not what was taken back before", "class-cup-count" not in components())
    broker.program.end()
    until(lambda: "cannot be reached or has ended" in program.words())
    broker.start()
    check("mosquitto restarts and has forgotten all: everything is there again", until(lambda: len(broker.kept()) == 3 + 7, 60), len(broker.kept()))
    lost = [line for line in program.words().splitlines() if "cannot be reached" in line]
    check("few lines about it", 1 <= len(lost) <= 4, lost)
    return scene, program


def stalled(directory, broker, scene, program):
    resident = lambda: int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{program.process.pid}/status").read_text())[1])
    descriptors = lambda: len(os.listdir(f"/proc/{program.process.pid}/fd"))
    scene.pause = 0.001
    until(lambda: False, 2)
    before = resident(), descriptors()
    broker.program.process.send_signal(signal.SIGSTOP)
    for turn in range(300):
        scene.set([turn % 2] * 4 + [1] * (turn % 5) + [0] * (4 - turn % 5), [0])
        time.sleep(0.05)
    after = resident(), descriptors()
    check("a broker that stops reading: memory and descriptors stay", after[0] < before[0] + 2048 and after[1] <= before[1] + 1, f"{before} {after} KiB, descriptors")
    scene.set([1] * 8, [0])
    broker.program.process.send_signal(signal.SIGCONT)
    newest = lambda: (broker.kept().get(f"{BASE}/class/owl/area"), broker.kept().get(f"{BASE}/availability"))
    check("it goes on: the newest values arrive", until(lambda: newest() == (b"1", b"online"), 90), newest())
    scene.end()
    code = program.end()
    check("SIGTERM: offline and 0", until(lambda: broker.kept().get(f"{BASE}/availability") == b"offline") and code == 0, program.words()[-300:] if code else "")


def certificates(directory):
    run = lambda *words: subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=directory)
    for name in ("ca", "other"):
        run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3", "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN=our {name}")
    run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    pathlib.Path(f"{directory}/san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    run("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3", "-extfile", "san", "-out", "server.crt")
    os.chmod(f"{directory}/server.key", 0o644)


def over_tls(directory):
    """TLS, the picture, and a real daemon against the Python client."""
    from eomt_edge_client import Subscriber
    certificates(directory)
    broker = Broker(directory, tls=True)
    sock = f"{directory}/masks.sock"
    daemon = real_daemon(directory, sock)
    if not until(lambda: os.path.exists(sock) or daemon.process.poll() is not None, 120) or daemon.process.poll() is not None:
        return check("the real daemon starts", False, daemon.words())
    other = bridge(directory, configuration(directory, broker, f'ca_file = "{directory}/other.crt"\n', name="other"), sock, "other")
    sentence = until(lambda: [line for line in other.words().splitlines() if "localhost" in line and "ertificate" in line])
    check("a certificate of somebody else is refused", bool(sentence), sentence)
    other.end()
    more = f'ca_file = "{directory}/ca.crt"\ninterval = 0.0\npresence = {{ on_after = 0, off_after = 0 }}\nimage = {{ every = 0.5 }}\n' \
        '[[zones]]\nname = "left"\npolygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\n'
    watch = broker.watch(f"{BASE}/#")
    program = bridge(directory, configuration(directory, broker, more), sock, "tls")
    frames = collections.defaultdict(set)
    start = time.monotonic()
    with Subscriber(sock) as masks:
        for frame in masks:
            labels, pixels = masks.labels, frame.ids.size
            left = frame.ids[:, :frame.ids.shape[1] // 2]
            for label in labels:
                mine = [segment for segment in frame.segments if segment.label == label]
                level = re.sub("[^a-z0-9]+", "_", label.lower())
                area = sum(segment.area for segment in mine)
                frames[f"class/{level}/count"].add(str(len(mine)))
                frames[f"class/{level}/area"].add(round(area / pixels, 4))
                inside = np.isin(left, [segment.id for segment in mine]).sum() if mine else 0
                frames[f"zone/left/{level}/area"].add(round(inside / left.size, 4))
            if time.monotonic() > start + 15:
                break
    watch.end()
    good, bad = collections.Counter(), []
    for topic, payload, _, _ in watch.seen:
        level = topic.removeprefix(BASE + "/")
        if level in frames:
            value = payload.decode()
            kind = level.split("/")[0] + level.split("/")[-1]
            known = value in frames[level] if level.endswith("count") else any(abs(float(value) - other) < 1.5e-4 for other in frames[level])
            good[kind] += known
            bad += [] if known else [(level, value)]
    check("over TLS, values are those that the Python client saw", not bad and min(good[kind] for kind in ("classcount", "classarea", "zonearea")) > 10, (dict(good), bad[:5]))
    kept = broker.kept()
    jpeg = kept.get(f"{BASE}/image", b"")
    check("the picture is a JPEG", jpeg.startswith(b"\xff\xd8\xff") and jpeg.endswith(b"\xff\xd9"), f"{len(jpeg)} bytes")
    wrong = valid_discovery(json.loads(kept[CONFIG]), kept)
    check("discovery of a real model", not wrong, wrong)
    daemon.end(signal.SIGKILL)
    check("the daemon is killed: offline", until(lambda: broker.kept().get(f"{BASE}/availability") == b"offline"))
    daemon = real_daemon(directory, sock)
    check("it restarts: online", until(lambda: broker.kept().get(f"{BASE}/availability") == b"online", 120))
    # pictures are switched off: the last one does not stay
    program.end()
    program = bridge(directory, configuration(directory, broker, more.replace("every = 0.5", "every = 0")), sock, "tls2")
    check("without pictures the old one goes", until(lambda: f"{BASE}/image" not in broker.kept() and broker.kept().get(f"{BASE}/availability") == b"online"))
    daemon.end()
    program.end()
    broker.program.end()


def refusals(directory):
    for text, words in [("qos = 7", "qos = 7: 0, 1 or 2"), ("brokr = 1", "unknown field `brokr`"), ("[[zones]]\nname = \"a\"\npolygon = [[0, 0]]", "zones.a.polygon = 1 corners")]:
        path = pathlib.Path(f"{directory}/bad.toml")
        path.write_text(text)
        result = subprocess.run([BRIDGE, "mqtt", "--config", str(path)], capture_output=True, text=True)
        sentence = result.stderr.strip()
        check("a wrong configuration is one sentence", result.returncode == 2 and f"{path}: " in sentence and words in sentence and "\n" not in sentence, sentence)


def main():
    with tempfile.TemporaryDirectory() as directory:
        refusals(directory)
        broker = Broker(directory)
        sock, scene, program, config = states(directory, broker)
        scene, program = restarts(directory, broker, sock, scene, program, config)
        stalled(directory, broker, scene, program)
        broker.program.end()
        over_tls(directory)
    check.end()


if __name__ == "__main__":
    main()
