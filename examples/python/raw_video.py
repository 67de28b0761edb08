#!/usr/bin/env python3
"""Writes what a daemon publishes as raw video to standard output: for GStreamer, ffmpeg and others. docs/clients.md has pipelines.

    PYTHONPATH=clients/python python3 examples/python/raw_video.py --show masks | \
        gst-launch-1.0 -q fdsrc fd=0 ! rawvideoparse format=rgba width=640 height=480 ! videoconvert ! autovideosink

`--show overlay`: the camera's picture with colours over it, RGBA (the daemon needs `ring.include_frame=true`). `masks`: the colours alone,
transparent where no segment is, RGBA. `ids`: the id map, 16-bit grey, little-endian, rows padded to 4 bytes as GStreamer has them.
"""

import argparse
import os
import sys

import eomt_edge_client
import numpy as np
from eomt_edge_client.colours import class_colour

# of colours over the picture, as the daemon's own overlay
OPACITY = 0.45


def colours_of(frame: eomt_edge_client.Frame) -> np.ndarray:
    """(height, width, 4): the colour of each pixel's class, and whether it has one (0 or 255)."""
    ids = frame.ids
    table = np.zeros((int(ids.max()) + 1, 4), np.uint8)
    for segment in frame.segments:
        if segment.id < len(table):
            table[segment.id] = *class_colour(segment.category_id), 255
    return table[ids]


def picture(frame: eomt_edge_client.Frame, show: str) -> np.ndarray:
    if show == "ids":
        return np.pad(frame.ids, ((0, 0), (0, frame.width % 2)))
    colours = colours_of(frame)
    if show == "masks":
        return colours
    if frame.rgb is None:
        sys.exit("raw_video: the daemon publishes no picture in RGB: set ring.include_frame=true and ring.frame_format=rgb, or use --show masks")
    opacity = OPACITY * (colours[..., 3:] != 0)
    mixed = (1 - opacity) * frame.rgb + opacity * colours[..., :3]
    return np.dstack([mixed.astype(np.uint8), np.full_like(frame.ids, 255, np.uint8)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", default=eomt_edge_client.DEFAULT_SOCKET)
    parser.add_argument("--show", choices=["overlay", "masks", "ids"], default="masks")
    parser.add_argument("--frames", type=int, help="end after so many (default: never)")
    options = parser.parse_args()
    size = None
    with eomt_edge_client.Subscriber(options.socket, timeout=10, reconnect=True) as masks:
        for number, frame in enumerate(masks, start=1):
            # raw video has no header: a frame of another size would be read as garbage
            if size not in (None, (frame.width, frame.height)):
                sys.exit(f"raw_video: frames of {size[0]}x{size[1]} have become {frame.width}x{frame.height}: start again")
            size = frame.width, frame.height
            sys.stdout.buffer.write(picture(frame, options.show).tobytes())
            sys.stdout.buffer.flush()
            if number == options.frames:
                return


if __name__ == "__main__":
    try:
        main()
    except eomt_edge_client.Error as error:
        sys.exit(f"raw_video: {error}")
    except (KeyboardInterrupt, BrokenPipeError):
        # what reads has gone; Python flushes once more at its exit, which must not fail loudly
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
