#!/usr/bin/env python3
"""Writes the frames of this folder: random pictures of 7x5, or 8x4 for 4:2:2 (whose odd widths the tools treat differently), repacked
without loss by ffmpeg and, where ffmpeg reads a format only, by GStreamer. NAME.raw is what `ffmpeg -f rawvideo -pix_fmt NAME` writes.

rgb24, gray, yuv422p and yuv444p are what the others are made of; rgb565le is made of colours that 16 bits hold exactly, by GStreamer,
since ffmpeg's way to it shares chroma among neighbours. ffmpeg 5.1.9
and GStreamer 1.22.0 (Debian 12) wrote the files that are here; run with both in the path."""

import pathlib
import random
import subprocess

HERE = pathlib.Path(__file__).parent
SOURCES = {
    # pixel format: (width, height, bytes, what ffmpeg makes of it, what GStreamer does)
    "rgb24": (7, 5, 7 * 5 * 3, ["rgb0", "0rgb", "bgr0", "0bgr"], []),
    "gray": (7, 5, 7 * 5, ["gray16le"], []),
    "yuv422p": (8, 4, 8 * 4 * 2, ["yuyv422", "uyvy422", "yvyu422"], ["nv16", "nv61", "vyuy"]),
    "yuv444p": (7, 5, 7 * 5 * 3, ["nv24", "nv42"], []),
}


def ffmpeg(source: str, width: int, height: int, data: bytes, target: str) -> bytes:
    command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", source, "-s", f"{width}x{height}", "-i", "-"]
    command += ["-pix_fmt", target, "-f", "rawvideo", "-"]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def gstreamer(source: str, width: int, height: int, data: bytes, target: str) -> bytes:
    command = ["gst-launch-1.0", "-q", "fdsrc", "!", "rawvideoparse", f"format={source}", f"width={width}", f"height={height}"]
    command += ["!", "videoconvert", "dither=none", "!", f"video/x-raw,format={target}", "!", "fdsink"]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def main() -> None:
    number = random.Random(565)
    for source, (width, height, count, by_ffmpeg, by_gstreamer) in SOURCES.items():
        data = bytes(number.randrange(256) for _ in range(count))
        (HERE / f"{source}.raw").write_bytes(data)
        for target in by_ffmpeg:
            (HERE / f"{target}.raw").write_bytes(ffmpeg(source, width, height, data, target))
        for target in by_gstreamer:
            (HERE / f"{target}.raw").write_bytes(gstreamer("y42b", width, height, data, target.upper()))
    exact = bytes(number.choice((0, 255)) for _ in range(8 * 4 * 3))
    (HERE / "rgb565-of.rgb24.raw").write_bytes(exact)
    (HERE / "rgb565le.raw").write_bytes(gstreamer("rgb", 8, 4, exact, "RGB16"))


if __name__ == "__main__":
    main()
