#!/bin/bash
# ffmpeg 7.0.2 (imageio-ffmpeg 0.6.0 from PyPI; Debian 12's 5.1.9 does the same), rgb24 to rgb565le, as a producer for a pipe of raw
# frames would.
#
# One would guess: RGB to RGB of fewer bits keeps each pixel for itself, so that pure red and pure green, which 16 bits hold exactly,
# stay what they are. They do not: swscale goes through YUV with chroma at half the width, and alternating red and green pixels all
# become browns, (11, 23, 0) and (20, 40, 5) of (31, 63, 31). Neither full_chroma_inp nor sws_dither=none helps. rgb24 to bgr0 keeps
# every pixel, and so does GStreamer's videoconvert to RGB16: send 24 or 32 bits, or let GStreamer pack.
#
# Needs python3 and PyPI; works in a temporary folder and removes it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install imageio-ffmpeg==0.6.0
cat >"$work/try.py" <<'END'
import subprocess

import imageio_ffmpeg

ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
picture = bytes([255, 0, 0, 0, 255, 0] * 16)  # 8x4, red and green in turn


def convert(target, *flags):
    command = [ffmpeg, "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "8x4", "-i", "-", *flags]
    command += ["-pix_fmt", target, "-f", "rawvideo", "-"]
    return subprocess.run(command, input=picture, stdout=subprocess.PIPE, check=True).stdout


def levels(packed):
    values = [low | high << 8 for low, high in zip(packed[::2], packed[1::2])]
    return [(value >> 11, value >> 5 & 63, value & 31) for value in values[:2]]


for flags in ([], ["-sws_flags", "full_chroma_inp+full_chroma_int+accurate_rnd", "-sws_dither", "none"]):
    print("rgb565le", *flags, levels(convert("rgb565le", *flags)))
print("bgr0 keeps its pixels:", convert("bgr0")[:8] == bytes([0, 0, 255, 255, 0, 255, 0, 255]))
END
"$work/venv/bin/python" "$work/try.py" | tee "$work/seen"
grep -q '^rgb565le \[(11, 23, 0), (20, 40, 5)\]$' "$work/seen"
grep -q '^rgb565le -sws_flags .*\[(17, 17, 0), (25, 35, 6)\]$' "$work/seen"
grep -q '^bgr0 keeps its pixels: True$' "$work/seen"
