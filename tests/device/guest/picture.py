"""A known picture for the loop-back camera, and what the daemon says of it; standard library and numpy.

    picture.py make CLIP.png BASE               CLIP.png enlarged to 640x480: BASE.png, BASE.rgb24, BASE.yuyv
    picture.py compare PANOPTIC.png JSON HOW    the ring against the files of `segment`; HOW is exact or close
    picture.py framebuffer                      that /dev/fb0 shows a picture
"""
import json
import struct
import sys
import time
import zlib

import numpy as np

sys.path.insert(0, "/test/clients")


def read_png(path):
    """8-bit RGB or RGBA without interlacing, HxWx3."""
    data, position, packed = open(path, "rb").read(), 8, b""
    while position < len(data):
        size, kind = struct.unpack(">I4s", data[position:position + 8])
        body = data[position + 8:position + 8 + size]
        position += size + 12
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert depth == 8 and colour in (2, 6) and not interlaced, (depth, colour, interlaced)
        elif kind == b"IDAT":
            packed += body
    step = 3 if colour == 2 else 4
    raw, rows = zlib.decompress(packed), np.zeros((height + 1, width * step), np.uint8)
    for y in range(height):
        start = y * (width * step + 1)
        line, above = bytearray(raw[start + 1:start + 1 + width * step]), rows[y].tobytes()
        kind = raw[start]
        for x in range(len(line) if kind else 0):
            left = line[x - step] if x >= step else 0
            corner = above[x - step] if x >= step else 0
            up = above[x]
            if kind == 4:
                guess = left + up - corner
                near = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
            else:
                near = (0, left, up, (left + up) // 2)[kind]
            line[x] = (line[x] + near) & 255
        rows[y + 1] = np.frombuffer(bytes(line), np.uint8)
    return rows[1:].reshape(height, width, step)[:, :, :3]


def write_png(path, rgb):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    height, width, _ = rgb.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), rgb.reshape(height, -1)], axis=1)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        file.write(chunk(b"IDAT", zlib.compress(rows.tobytes(), 1)) + chunk(b"IEND", b""))


def make(clip, base):
    small = read_png(clip)
    rgb = small[np.arange(480) * small.shape[0] // 480][:, np.arange(640) * small.shape[1] // 640]
    write_png(base + ".png", rgb)
    rgb.tofile(base + ".rgb24")
    r, g, b = (rgb[:, :, channel].astype(np.float64) for channel in range(3))  # BT.601, limited range
    y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
    cb = 128 + (-37.797 * r - 74.203 * g + 112 * b) / 255
    cr = 128 + (112 * r - 93.786 * g - 18.214 * b) / 255
    yuyv = np.empty((480, 320, 4), np.uint8)
    yuyv[:, :, 0], yuyv[:, :, 2] = np.rint(y[:, 0::2]), np.rint(y[:, 1::2])
    yuyv[:, :, 1], yuyv[:, :, 3] = np.rint((cb[:, 0::2] + cb[:, 1::2]) / 2), np.rint((cr[:, 0::2] + cr[:, 1::2]) / 2)
    yuyv.tofile(base + ".yuyv")


def difference(frame, wanted, ids, exact):
    """None when the same, else a sentence."""
    got = [(s.id, s.label) for s in frame.segments]
    if exact:
        if got != [(s["id"], s["label"]) for s in wanted]:
            return f"segments {got}"
        wrong = int((frame.ids != ids).sum())
        return f"{wrong} pixels differ" if wrong else None
    if sorted(label for _, label in got) != sorted(s["label"] for s in wanted):
        return f"classes {got}"
    for segment in wanted:
        mask = ids == segment["id"]
        # colour at half the resolution and rounding move edges by a pixel, not whole segments
        best = max(((frame.ids == number) & mask).sum() / ((frame.ids == number) | mask).sum() for number, label in got if label == segment["label"])
        if best < 0.9:
            return f"{segment['label']}: IoU {best:.3f}"
    return None


def compare(panoptic, text, how):
    from eomt_edge_client import Error, Subscriber
    ids = read_png(panoptic).astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    wanted = json.load(open(text))["segments"]
    assert len(wanted) >= 3, f"a picture with {len(wanted)} segments proves little"
    deadline, reason = time.monotonic() + 150, "nothing came"
    while time.monotonic() < deadline:
        try:
            with Subscriber("/run/eomt-edge/masks.sock", timeout=60) as masks:
                for frame in masks:
                    if frame.ids.shape != ids.shape:
                        reason = f"frames of {frame.ids.shape}"
                    else:
                        reason = difference(frame, wanted, ids, how == "exact")
                    if reason is None:
                        print(f"the same {len(wanted)} segments as `segment`, {how}: {', '.join(s['label'] for s in wanted)}")
                        return 0
                    print(reason, flush=True)
                    if time.monotonic() > deadline:
                        break
        except (Error, TimeoutError) as error:
            reason = str(error)
            time.sleep(1)
    print(reason)
    return 1


def framebuffer():
    with open("/dev/fb0", "rb") as device:
        pixels = np.frombuffer(device.read(), np.uint32) & 0xFFFFFF
    lit, colours = int((pixels != 0).sum()), len(np.unique(pixels))
    print(f"{lit} of {pixels.size} pixels are lit, {colours} colours")
    # a text console has two or three colours; a picture with blended segments has hundreds
    return 0 if lit > pixels.size // 4 and colours > 100 else 1


if __name__ == "__main__":
    sys.exit({"make": make, "compare": compare, "framebuffer": framebuffer}[sys.argv[1]](*sys.argv[2:]))
