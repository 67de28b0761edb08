"""Writes what real producers put into a pipe, and the same pixels without padding.

GStreamer 1.22.0 and ffmpeg 5.1 (Debian 12: gstreamer1.0-tools, gstreamer1.0-plugins-base, gstreamer1.0-plugins-good, ffmpeg).
`F-WxH.gst` is what fdsink writes of a picture of 32x24 that videocrop has cut; `F-WxH.tight` is cut here from what fdsink writes of the
whole picture, where every row of every plane is a multiple of 4 bytes and nothing is padded.
"""
import pathlib
import subprocess

here = pathlib.Path(__file__).parent
WIDTH, HEIGHT, FRAMES = 32, 24, 2

# of each plane: bytes of a sample, columns and rows that share it
PLANES = {
    "I420": [(1, 1, 1), (1, 2, 2), (1, 2, 2)],
    "NV12": [(1, 1, 1), (2, 2, 2)],
    "NV21": [(1, 1, 1), (2, 2, 2)],
    "GRAY8": [(1, 1, 1)],
    "RGB": [(3, 1, 1)],
    "BGR": [(3, 1, 1)],
    "YUY2": [(4, 2, 1)],
    "UYVY": [(4, 2, 1)],
}


def gst(name, size, *rest, pattern="pinwheel", frames=FRAMES):
    caps = f"video/x-raw,format={name},width={size[0]},height={size[1]},framerate=25/1"
    words = f"videotestsrc num-buffers={frames} pattern={pattern} ! {caps}".split()
    return subprocess.run(["gst-launch-1.0", "-q", *words, *rest, "!", "fdsink", "fd=1"], check=True, capture_output=True).stdout


def cut(name, whole, size):
    at, kept = 0, b""
    for _ in range(FRAMES):
        for sample, across, down in PLANES[name]:
            row, rows = WIDTH // across * sample, HEIGHT // down
            for y in range(-(-size[1] // down)):
                kept += whole[at + y * row:][:-(-size[0] // across) * sample]
            at += row * rows
    assert at == len(whole)
    return kept


for name in PLANES:
    whole = gst(name, (WIDTH, HEIGHT))
    for size in [(26, 18), (21, 15)]:
        if size[0] % 2 and name in ("YUY2", "UYVY"):
            continue  # videocrop copies only half of the last pair
        file = f"{name.lower()}-{size[0]}x{size[1]}"
        crop = ["!", "videocrop", f"right={WIDTH - size[0]}", f"bottom={HEIGHT - size[1]}"]
        (here / f"{file}.gst").write_bytes(gst(name, (WIDTH, HEIGHT), *crop))
        (here / f"{file}.tight").write_bytes(cut(name, whole, size))

(here / "smpte-i420-106x80.gst").write_bytes(gst("I420", (106, 80), pattern="smpte", frames=1))
for name, pixel_format in [("i420", "yuv420p"), ("rgb", "rgb24")]:
    words = f"ffmpeg -v error -f lavfi -i testsrc=size=106x80:rate=1 -frames:v 1 -pix_fmt {pixel_format} -f rawvideo -".split()
    (here / f"testsrc-{name}-106x80.tight").write_bytes(subprocess.run(words, check=True, capture_output=True).stdout)
