"""See metrics-check.sh."""
import collections
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request

from checking import BRIDGE, Checks, Program, real_daemon, root, until
from hand_daemon import NO_SIGNAL, HandDaemon, be_called

check = Checks()
LINE = re.compile(r'^([a-z_]+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-z0-9_]+)="((?:[^"\\]|\\.)*)"')


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path="/metrics", headers={}, method="GET", timeout=40):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def samples(text):
    """{(name, ((label, value), ...)): number}"""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = LINE.match(line).groups()
            key = (name, tuple(LABEL.findall(labels or "")))
            assert key not in found, f"twice: {line}"
            found[key] = float(value)
    return found


def page(port):
    return samples(get(port)[1])


def value(port, name, **labels):
    return page(port).get((name, tuple(labels.items())))


def promtool(text):
    result = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    return result.returncode == 0 and not result.stderr and not result.stdout, result.stderr + result.stdout


def by_hand(directory, port):
    path = f"{directory}/hand.sock"
    bridge = Program(directory, "metrics", [BRIDGE, "metrics", "--socket", path, "--listen", f"127.0.0.1:{port}"])
    until(lambda: "metrics at http" in bridge.words())
    text = get(port)[1]
    check("no daemon: eomt_up 0, and no line about frames", samples(text)[("eomt_up", ())] == 0 and "eomt_signal" not in text and "eomt_segments" not in text)
    check("promtool: no daemon", *promtool(text))
    be_called("eomt-edge")
    daemon = HandDaemon(path, ["cup", 'a "b"\\\n', "", "cup"], (8, 4))
    until(lambda: value(port, "eomt_up") == 1)
    daemon.publish(segments=[(1, 0, 5), (2, 3, 5), (3, 1, 5)], drops=(1, 2, 3), failed=4, stages=(1000, 20000, 3000, 100))
    until(lambda: value(port, "eomt_frames_published_total") == 1)
    daemon.publish(segments=[(1, 0, 5)], drops=(10, 20, 30), failed=40, stages=(1000, 20000, 3000, 100), skip=5)
    until(lambda: value(port, "eomt_frames_published_total") == 7)
    answer, text = get(port)
    found = samples(text)
    expected = {
        ("eomt_up", ()): 1, ("eomt_signal", ()): 1, ("eomt_stale", ()): 0,
        ("eomt_frames_published_total", ()): 7, ("eomt_frames_skipped_total", ()): 5, ("eomt_frames_failed_total", ()): 40,
        ("eomt_frames_dropped_total", (("cause", "busy"),)): 10, ("eomt_frames_dropped_total", (("cause", "source"),)): 20,
        ("eomt_frames_dropped_total", (("cause", "corrupt"),)): 30, ("eomt_frames_dropped_total", (("cause", "unknown"),)): 0,
        ("eomt_stage_duration_seconds_count", (("stage", "infer"),)): 2, ("eomt_stage_duration_seconds_sum", (("stage", "infer"),)): 0.04,
        ("eomt_stage_duration_seconds_bucket", (("stage", "infer"), ("le", "0.01"))): 0,
        ("eomt_stage_duration_seconds_bucket", (("stage", "infer"), ("le", "0.025"))): 2,
        ("eomt_stage_duration_seconds_bucket", (("stage", "infer"), ("le", "+Inf"))): 2,
        ("eomt_segments", (("class", "cup"),)): 1, ("eomt_segments", (("class", 'a \\"b\\"\\\\\\n'),)): 0, ("eomt_segments", (("class", "(other)"),)): 0,
        ("eomt_class_frames_total", (("class", "cup"),)): 2, ("eomt_class_frames_total", (("class", 'a \\"b\\"\\\\\\n'),)): 1,
        ("eomt_frame_age_seconds_count", ()): 2, ("eomt_frame_width_pixels", ()): 8, ("eomt_frame_height_pixels", ()): 4,
    }
    wrong = {key: (found.get(key), number) for key, number in expected.items() if found.get(key) != number}
    check(f"{len(expected)} numbers of a daemon made by hand", not wrong, wrong or "")
    check("age: 30 ms each", abs(found[("eomt_frame_age_seconds_sum", ())] - 0.06) < 1e-3)
    status = pathlib.Path("/proc/self/status").read_text()
    kib = int(re.search(r"VmHWM:\s+(\d+)", status)[1])
    check("the daemon's memory is /proc's", abs(found[("eomt_daemon_memory_peak_bytes", ())] / 1024 - kib) < 2048, f"{kib} KiB")
    check("promtool", *promtool(text))
    check("content type of text", answer.getheader("content-type") == "text/plain; version=0.0.4; charset=utf-8")
    answer, metrics = get(port, headers={"Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3"})
    check("OpenMetrics when asked", answer.getheader("content-type").startswith("application/openmetrics-text") and metrics.endswith("# EOF\n"))
    daemon.publish(flags=NO_SIGNAL, drops=(10, 20, 30), failed=40)
    check("no signal", until(lambda: value(port, "eomt_signal") == 0) and value(port, "eomt_frame_age_seconds_count") == 2)
    daemon.end()
    check("the daemon ends: eomt_up 0", until(lambda: value(port, "eomt_up") == 0))
    check("totals stay, what is of now goes", value(port, "eomt_frames_published_total") == 8 and value(port, "eomt_signal") is None)
    daemon = HandDaemon(path, ["cup", "dog"], (8, 4), pid=os.getppid())
    daemon.publish(segments=[(1, 1, 5)], drops=(1, 0, 0))
    until(lambda: value(port, "eomt_frames_published_total") == 9)
    found = page(port)
    check("another daemon: totals go on", found[("eomt_frames_dropped_total", (("cause", "busy"),))] == 11 and found[("eomt_class_frames_total", (("class", "cup"),))] == 2)
    check("a process of another name is not the daemon", ("eomt_daemon_memory_resident_bytes", ()) not in found)
    return bridge, daemon


def scrapers(port):
    check("other paths and methods", [get(port, "/")[0].status, get(port, method="POST")[0].status, get(port, "/metrics/x")[0].status] == [404, 405, 404])
    try:
        status = get(port, headers={"X-Long": "x" * 100_000})[0].status
    except OSError:
        status = "closed"
    check("headers of 100 kB", status in (431, "closed"), status)
    results = collections.Counter()

    def scrape():
        for _ in range(10):
            try:
                answer, text = get(port)
                results[answer.status == 200 and samples(text)[("eomt_up", ())] == 1.0] += 1
            except Exception as error:  # noqa: BLE001
                results[repr(error)] += 1

    threads = [threading.Thread(target=scrape) for _ in range(20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    check("twenty scrapers at once", results == {True: 200}, results)
    # more than there are places: they say nothing, or read nothing
    stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(70)]
    [connection.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") for connection in stalled[::2]]
    check("while seventy stall, another is served", get(port)[0].status == 200)
    [connection.close() for connection in stalled]


def a_real_prometheus(directory, port):
    own = free_port()
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [{"job_name": "eomt", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}]}
    pathlib.Path(f"{directory}/prometheus.yml").write_text(json.dumps(config))
    checked = subprocess.run(["promtool", "check", "config", f"{directory}/prometheus.yml"], capture_output=True, text=True)
    check("promtool check config", checked.returncode == 0, checked.stderr)
    arguments = [f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb", f"--web.listen-address=127.0.0.1:{own}"]
    prometheus = Program(directory, "prometheus", ["prometheus", *arguments])

    def query(expression):
        url = f"http://127.0.0.1:{own}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read()
            return json.loads(text) if text.startswith(b"{") else {"status": text, "data": {"result": []}}
        except OSError:
            return {"status": "not there yet", "data": {"result": []}}

    up = until(lambda: query("count_over_time(eomt_up[1m]) > 3")["data"]["result"], 60)
    check("Prometheus scrapes it", bool(up) and query("up")["data"]["result"][0]["value"][1] == "1")
    dashboard = json.loads((root / "packaging/grafana/eomt-edge.json").read_text())
    empty = []
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            answer = query(target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m"))
            if answer["status"] != "success":
                check(f"dashboard, {panel['title']}", False, answer)
            elif not answer["data"]["result"]:
                empty.append(panel["title"])
    check(f"the dashboard's {len(dashboard['panels'])} panels are evaluated", True, f"without data on this machine: {sorted(set(empty))}")
    prometheus.end()


def by_client(directory, port):
    from eomt_edge_client import Subscriber
    path = f"{directory}/masks.sock"
    daemon = real_daemon(directory, path)
    if not until(lambda: os.path.exists(path) or daemon.process.poll() is not None, 120) or daemon.process.poll() is not None:
        return check("the real daemon starts", False, daemon.words())
    bridge = Program(directory, "metrics-real", [BRIDGE, "metrics", "--socket", path, "--listen", f"127.0.0.1:{port}"])
    until(lambda: "metrics at http" in bridge.words())
    until(lambda: value(port, "eomt_frames_published_total"), 60)
    frames = {}
    with Subscriber(path) as masks:
        pages = []
        for frame in masks:
            frames[frame.sequence] = collections.Counter(segment.label for segment in frame.segments)
            if len(frames) % 10 == 5:
                before = frame.sequence
                found = page(port)
                after = next(iter(masks))
                frames[after.sequence] = collections.Counter(segment.label for segment in after.segments)
                pages.append((before, found, after.sequence))
            if len(frames) >= 60:
                break
    published = [int(found[("eomt_frames_published_total", ())]) for _, found, _ in pages]
    check("frames published: no more than the client saw", all(number <= after for number, (_, _, after) in zip(published, pages)), published)
    check("and no fewer, a moment later", until(lambda: value(port, "eomt_frames_published_total") >= max(frames)))
    # the exporter was there from the first ring on, so its total is the number of the frame that it shows
    pairs = []
    for number, (_, found, _) in zip(published, pages):
        now = {labels[0][1]: int(count) for (name, labels), count in found.items() if name == "eomt_segments" and count}
        pairs += [(now, dict(frames[number]))] if number in frames else []
    check("segments by class are those of the client's frame", pairs and all(ours == theirs for ours, theirs in pairs), f"{len(pairs)} of {len(pages)} seen by both")
    found = page(port)
    counts = [found[("eomt_stage_duration_seconds_count", (("stage", stage),))] for stage in ("preprocess", "infer", "segment", "publish")]
    check("every stage of every frame that was looked at", len(set(counts)) == 1 and counts[0] > 30, counts)
    info = [dict(labels) for (name, labels) in found if name == "eomt_model_info"]
    check("the model", len(info) == 1 and info[0]["task"] == "panoptic" and len(info[0]["sha256_begin"]) == 32, info)
    check("promtool: a real daemon", *promtool(get(port)[1]))
    daemon.end(signal.SIGKILL)
    check("killed: eomt_up 0", until(lambda: value(port, "eomt_up") == 0))
    daemon = real_daemon(directory, path)
    check("started again: eomt_up 1, totals go on", until(lambda: value(port, "eomt_up") == 1 and value(port, "eomt_frames_published_total") > found[("eomt_frames_published_total", ())], 120))
    daemon.end()
    check("SIGTERM ends it with 0", bridge.end() == 0, bridge.words()[-300:])


def main():
    with tempfile.TemporaryDirectory() as directory:
        taken = free_port()
        with socket.create_server(("127.0.0.1", taken)):
            refused = subprocess.run([BRIDGE, "metrics", "--listen", f"127.0.0.1:{taken}"], capture_output=True, text=True)
            one_line = refused.stderr.strip()
            check("a taken port is one sentence", refused.returncode == 1 and f"127.0.0.1:{taken}" in one_line and "\n" not in one_line, one_line)
        port = free_port()
        bridge, daemon = by_hand(directory, port)
        scrapers(port)
        a_real_prometheus(directory, port)
        bridge.end()
        by_client(directory, free_port())
    check.end()


if __name__ == "__main__":
    main()
