"""Real producers into the running daemon: what it publishes must be the producers' picture, whatever the padding. See pipes-check.sh."""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

root = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root / "clients/python"))
from eomt_edge_client import Subscriber  # noqa: E402

program = os.environ.get("EOMT_EDGE", str(root / "target/release/eomt-edge"))
GST = {"rgb24": "RGB", "bgr24": "BGR", "grey": "GRAY8", "yuyv": "YUY2", "uyvy": "UYVY", "nv12": "NV12", "nv21": "NV21", "yuv420": "I420"}
FFMPEG = {"rgb24": "rgb24", "bgr24": "bgr24", "grey": "gray", "yuyv": "yuyv422", "uyvy": "uyvy422", "nv12": "nv12", "nv21": "nv21",
          "yuv420": "yuv420p"}


def published(command, size, *settings):
    """The picture that the daemon publishes of `exec:command`, and its log."""
    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/masks.sock"
        arguments = [program, "run", "--source", f"exec:{command}", "--model", str(root / "models/eomt-nano-scenes.onnx")]
        keys = [f"ring.socket={socket}", "ring.include_frame=true", f"source.size={size[0]}x{size[1]}", *settings]
        log = open(f"{directory}/log", "w+")
        daemon = subprocess.Popen(arguments + [word for key in keys for word in ("--set", key)], stderr=log)
        try:
            for _ in range(600):
                if os.path.exists(socket) or daemon.poll() is not None:
                    break
                time.sleep(0.1)
            with Subscriber(socket) as masks:
                for frame in masks:
                    if not frame.no_signal:
                        break
                rgb = np.array(frame.rgb)
        finally:
            daemon.terminate()
            daemon.wait()
            log.seek(0)
            words = log.read()
    return rgb, words


def main():
    failed = 0

    def check(name, good, detail=""):
        nonlocal failed
        failed += not good
        print("ok  " if good else "FAIL", name, detail, flush=True)

    # one picture, cut by GStreamer's videocrop (which writes rows as GStreamer lays them out) and by ffmpeg's crop (which never pads)
    whole = (448, 256)
    for kind in GST:
        for size in [(426, 240), (101, 75), (5, 7), (322, 47)]:
            # packed 4:2:2 of odd widths: ffmpeg leaves out half a pair, V4L2 and GStreamer do not
            if kind in ("yuyv", "uyvy") and size[0] % 2:
                continue
            # ffmpeg's crop takes planar 4:2:2 only as it is
            drawn = "yuv422p" if kind in ("yuyv", "uyvy") else FFMPEG[kind]
            source = f"ffmpeg -v error -f lavfi -i testsrc2=size={whole[0]}x{whole[1]}:rate=1000,format={drawn}"
            # the first frame only, again and again: both ways show the same one
            raw = f"-frames:v 1 -pix_fmt {FFMPEG[kind]} -f rawvideo -"
            gst = (f"{source} {raw} | gst-launch-1.0 -q fdsrc fd=0 ! rawvideoparse format={GST[kind].lower()} width={whole[0]} height={whole[1]}"
                   f" ! videocrop right={whole[0] - size[0]} bottom={whole[1] - size[1]} ! fdsink fd=1")
            crop = f"crop={size[0]}:{size[1]}:0:0:exact=1"
            tight = f"{source},{crop} {raw}"
            theirs, _ = published(tight, size, f"source.format={kind}")
            ours, log = published(gst, size, f"source.format={kind}", "source.stride=gstreamer")
            same = ours.shape == theirs.shape and np.array_equal(ours, theirs)
            check(f"{kind} {size[0]}x{size[1]}: GStreamer's picture is ffmpeg's", same and "sheared" not in log)
            if size == (426, 240) and kind not in ("yuyv", "uyvy"):
                _, log = published(gst, size, f"source.format={kind}")
                padded = kind not in ("rgb24", "bgr24") or 3 * size[0] % 4 != 0
                told = "source.stride=gstreamer" in log
                check(f"{kind} {size[0]}x{size[1]}: a wrong stride is said", told == padded)

    # colours as docs/pipes.md has them
    red = np.array([255, 0, 0])
    for size, colour in [((640, 480), "bt601"), ((1024, 576), "bt601"), ((1280, 720), "bt709")]:
        gst = f"gst-launch-1.0 -q videotestsrc pattern=red ! video/x-raw,format=I420,width={size[0]},height={size[1]} ! fdsink fd=1"
        rgb, _ = published(gst, size, "source.format=yuv420", "source.stride=gstreamer", f"source.colour={colour}")
        worst = int(np.abs(rgb.astype(int) - red).max())
        check(f"GStreamer's red at {size[0]}x{size[1]} is {colour}", worst <= 2, f"(off by {worst} levels)")
        ffmpeg = f"ffmpeg -v error -f lavfi -i color=red:size={size[0]}x{size[1]}:rate=30 -pix_fmt yuv420p -f rawvideo -"
        rgb, _ = published(ffmpeg, size, "source.format=yuv420", "source.colour=bt601")
        worst = int(np.abs(rgb.astype(int) - red).max())
        check(f"ffmpeg's red at {size[0]}x{size[1]} is bt601", worst <= 2, f"(off by {worst} levels)")
    sys.exit(1 if failed else 0)


main()
