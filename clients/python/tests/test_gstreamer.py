"""The pipelines of docs/clients.md with a real daemon and a real GStreamer: what comes out is what the ring holds, pixel by pixel."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from typing import Any, Tuple

import numpy as np
import numpy.typing as npt
from daemon import PATIENCE, ROOT, Daemon
from PIL import Image

from eomt_edge_client import Frame, Subscriber
from eomt_edge_client.colours import class_colour

BLUE = (0, 0, 255)


def still(directory: str, size: Tuple[int, int]) -> str:
    """A source that shows one scene for ever, so that every frame of a daemon is the same."""
    with Daemon("ring.include_frame=true", f"source.size={size[0]}x{size[1]}") as daemon, Subscriber(daemon.socket, PATIENCE) as masks:
        frame = next(masks)
        while len(frame.segments) < 3 or frame.ids.all():
            frame = next(masks)
        assert frame.rgb is not None
        Image.fromarray(frame.rgb).save(f"{directory}/scene.png")
    return f"replay:{directory}@30"


def through_gstreamer(daemon: Daemon, show: str, pipeline: str, directory: str) -> npt.NDArray[Any]:
    """The last of three pictures that `pipeline` encodes as PNG."""
    example = [sys.executable, str(ROOT / "examples/python/raw_video.py"), "--socket", daemon.socket, "--frames", "3", "--show", show]
    producer = subprocess.Popen(example, stdout=subprocess.PIPE)
    words = ["gst-launch-1.0", "-q", *pipeline.split(), "!", "pngenc", "!", "multifilesink", f"location={directory}/{show}-%d.png"]
    subprocess.run(words, stdin=producer.stdout, check=True, timeout=PATIENCE)
    assert producer.stdout is not None
    producer.stdout.close()
    assert producer.wait(PATIENCE) == 0
    names = sorted(name for name in os.listdir(directory) if name.startswith(f"{show}-"))
    assert names == [f"{show}-{number}.png" for number in range(3)], names
    with Image.open(f"{directory}/{names[-1]}") as picture:
        return np.asarray(picture)


class GStreamer(unittest.TestCase):
    def both(self, size: Tuple[int, int]) -> None:
        with tempfile.TemporaryDirectory() as pictures, tempfile.TemporaryDirectory() as out:
            settings = ("ring.include_frame=true", f"source.size={size[0]}x{size[1]}", "source.fps=30")
            with Daemon(*settings, source=still(pictures, size)) as daemon, Subscriber(daemon.socket, PATIENCE) as masks:
                frame = next(masks)
                self.compare(daemon, frame, out)

    def compare(self, daemon: Daemon, frame: Frame, out: str) -> None:
        size = f"width={frame.width} height={frame.height}"
        rgba = f"fdsrc fd=0 ! rawvideoparse format=rgba {size}"
        assert frame.rgb is not None
        classes = {segment.id: class_colour(segment.category_id) for segment in frame.segments}
        with self.subTest("ids"):
            got = through_gstreamer(daemon, "ids", f"fdsrc fd=0 ! rawvideoparse format=gray16-le {size} ! videoconvert ! video/x-raw,format=GRAY16_BE", out)
            np.testing.assert_array_equal(got, frame.ids)
        with self.subTest("masks"):
            got = through_gstreamer(daemon, "masks", rgba, out)
            wanted = [[(*classes[int(i)], 255) if int(i) in classes else (0, 0, 0, 0) for i in row] for row in frame.ids]
            np.testing.assert_array_equal(got, np.array(wanted, np.uint8))
        with self.subTest("overlay"):
            got = through_gstreamer(daemon, "overlay", rgba, out)[..., :3]
            wanted_overlay = [
                [[0.55 * int(a) + 0.45 * b for a, b in zip(pixel, classes[int(i)])] if int(i) in classes else list(pixel) for i, pixel in zip(*rows)]
                for rows in zip(frame.ids, frame.rgb)
            ]
            np.testing.assert_allclose(got, np.array(wanted_overlay, np.float64), rtol=0, atol=1.0)

    def test_pixels_arrive(self) -> None:
        self.both((64, 48))

    def test_pixels_arrive_with_an_odd_width(self) -> None:
        self.both((65, 47))

    def test_masks_over_another_video(self) -> None:
        """GStreamer's compositor takes the transparency."""
        with tempfile.TemporaryDirectory() as pictures, tempfile.TemporaryDirectory() as out:
            with Daemon("source.fps=30", source=still(pictures, (64, 48))) as daemon, Subscriber(daemon.socket, PATIENCE) as masks:
                frame = next(masks)
                got = through_gstreamer(
                    daemon, "masks",
                    "videotestsrc pattern=blue num-buffers=3 ! video/x-raw,format=RGBA,width=64,height=48,framerate=25/1 ! mix.sink_0 "
                    "fdsrc fd=0 ! rawvideoparse format=rgba width=64 height=48 framerate=25/1 ! mix.sink_1 "
                    "compositor name=mix sink_0::zorder=1 sink_1::zorder=2 ! video/x-raw,format=RGBA", out)
        for y in range(48):
            for x in range(64):
                segments = [s for s in frame.segments if s.id == frame.ids[y, x]]
                wanted = class_colour(segments[0].category_id) if segments else BLUE
                self.assertLessEqual(max(abs(int(a) - b) for a, b in zip(got[y, x], wanted)), 1, (x, y))


if __name__ == "__main__":
    unittest.main()
