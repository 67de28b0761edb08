#!/usr/bin/env python3
"""Prints what an eomt-edge daemon publishes, a line per frame, and where the largest segment's centre is.

Needs numpy and the client: `pip install ./clients/python`, or its folder on PYTHONPATH:

    PYTHONPATH=clients/python python3 examples/python/subscriber.py --socket /run/eomt-edge/masks.sock --frames 10
"""

import argparse
import sys

import eomt_edge_client
import numpy as np


def describe(frame):
    """`12 320x240 source 1a2b3c4d age 31 ms: car 0.97 at (120, 88), 3 segments`."""
    text = f"{frame.sequence} {frame.width}x{frame.height} source {frame.source_id:08x}"
    if frame.no_signal:
        return f"{text} no signal"
    age_ms = (frame.published_ns - frame.captured_ns) // 1_000_000
    text += f" age {age_ms} ms{' (stale)' if frame.stale else ''}:"
    if not frame.segments:
        return f"{text} nothing"
    largest = max(frame.segments, key=lambda segment: segment.area)
    rows, columns = np.nonzero(frame.ids == largest.id)  # the pixels of one segment
    where = f"at ({columns.mean():.0f}, {rows.mean():.0f})" if rows.size else "hidden"
    return f"{text} {largest.label} {largest.score:.2f} {where}, {len(frame.segments)} segments"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", default=eomt_edge_client.DEFAULT_SOCKET)
    parser.add_argument("--frames", type=int, help="end after so many (default: never)")
    options = parser.parse_args()
    # reconnect: a daemon that stops, or reads a new model, is waited for
    with eomt_edge_client.Subscriber(options.socket, timeout=10, reconnect=True) as masks:
        for number, frame in enumerate(masks, start=1):
            print(describe(frame), flush=True)
            if number == options.frames:
                return 0
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except eomt_edge_client.Error as error:
        sys.exit(f"subscriber: {error}")
    except KeyboardInterrupt:
        pass
