"""Keeps the last frames of the ring, read by the Python client, and compares them with what the page shows. See web_check.mjs.

A line of JSON in, a line of JSON out: {"sequence": N, "mask": FILE, "camera": FILE, "hidden": [classes]}; the files hold RGBA as the page's canvases
have it. The expected colours and contours are computed here anew, from the ids of the ring.
"""
import collections
import json
import pathlib
import sys
import threading

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "clients/python"))
from eomt_edge_client import Subscriber  # noqa: E402

frames = collections.OrderedDict()
came = threading.Condition()


def record(socket):
    with Subscriber(socket, reconnect=True) as masks:
        for frame in masks:
            with came:
                if frames and frame.sequence <= next(reversed(frames)):
                    frames.clear()  # another daemon counts from 1
                frames[frame.sequence] = (frame.ids.copy(), None if frame.rgb is None else frame.rgb.copy(), list(frame.segments))
                while len(frames) > 600:
                    frames.popitem(last=False)
                came.notify_all()


def colour(category):
    """The colour of a class as the daemon's overlay documents it: hues a golden angle apart, two brightnesses."""
    f = np.float32
    hue = f(np.modf(f(category) * f(0.618034) + f(0.02))[0]) * f(6)
    value = f(1.0 if category % 2 == 0 else 0.78)

    def ramp(shift):
        pure = np.clip(abs(np.fmod(f(hue + f(shift)), f(6)) - f(3)) - f(1), f(0), f(1))
        return int(f(255) * value * (f(0.15) + f(0.85) * f(pure)))

    return [ramp(0), ramp(4), ramp(2)]


def expected(ids, segments, hidden):
    picture = np.zeros((*ids.shape, 4), np.uint8)
    right = np.zeros(ids.shape, bool)
    below = np.zeros(ids.shape, bool)
    right[:, :-1] = ids[:, :-1] != ids[:, 1:]
    below[:-1] = ids[:-1] != ids[1:]
    edge = right | below
    for segment in segments:
        if segment.category_id in hidden:
            continue
        here = ids == segment.id
        picture[here] = [*colour(segment.category_id), 255]
        picture[here & edge] = [*(c // 4 for c in colour(segment.category_id)), 255]
    return picture


def answer(question):
    with came:
        if not came.wait_for(lambda: question["sequence"] in frames, 60):
            return {"error": f"frame {question['sequence']} was never seen; there are {list(frames)[:1]} to {list(frames)[-1:]}"}
        ids, rgb, segments = frames[question["sequence"]]
    said = {"segments": []}
    for segment in segments:
        inside = np.argwhere(ids == segment.id)
        y, x = inside[len(inside) // 2]
        said["segments"].append({"id": segment.id, "label": segment.label, "category": segment.category_id, "area": segment.area, "x": int(x), "y": int(y)})
    if "mask" in question:
        mask = np.fromfile(question["mask"], np.uint8).reshape(*ids.shape, 4)
        said["wrong"] = int((mask != expected(ids, segments, question.get("hidden", []))).any(axis=2).sum())
        said["pixels"] = ids.size
    if "camera" in question and rgb is not None:
        camera = np.fromfile(question["camera"], np.uint8).reshape(*ids.shape, 4)[..., :3]
        said["camera_error"] = float(np.abs(camera.astype(int) - rgb).mean())
    return said


threading.Thread(target=record, args=(sys.argv[1],), daemon=True).start()
for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
