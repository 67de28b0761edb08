"""Writes the JPEG pictures beside it: good ones of every kind that cameras and editors write, and damaged ones.

Needs Pillow 13.0.0 (PyPI) and cjpeg of libjpeg-turbo 2.1.5 (Debian: libjpeg-turbo-progs) for `apart.jpg`. `truth.png` is what
libjpeg-turbo makes of `baseline.jpg`; all good pictures but `apart.jpg` hold the same coefficients.
"""
import io
import pathlib
import subprocess
import tempfile

from PIL import Image

here = pathlib.Path(__file__).parent
picture = Image.new("RGB", (64, 48))
picture.putdata([((x * 4 + y) % 256, (y * 5 + x * x // 16) % 256, (x * y // 12) % 256) for y in range(48) for x in range(64)])


def encoded(**options):
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=85, subsampling=0, **options)
    return target.getvalue()


def segments(jpeg):
    """(marker, start, end) of each segment up to the first scan's data."""
    at = 2
    while True:
        end = at + 2 + int.from_bytes(jpeg[at + 2:at + 4], "big")
        yield jpeg[at + 1], at, end
        if jpeg[at + 1] == 0xDA:
            return
        at = end


def data_start(jpeg):
    return list(segments(jpeg))[-1][2]


def write(name, data):
    (here / name).write_bytes(data)


baseline, progressive = encoded(), encoded(progressive=True)
restarts = encoded(restart_marker_blocks=8)
exif = Image.Exif()
exif[0x0112] = 6  # stored on its side: turn clockwise
turned = encoded(exif=exif)
start = data_start(baseline)
middle = (start + len(baseline)) // 2

write("baseline.jpg", baseline)
Image.open(io.BytesIO(baseline)).convert("RGB").save(here / "truth.png")
write("progressive.jpg", progressive)
write("restarts.jpg", restarts)
write("turned.jpg", turned)
bare = baseline[:2] + b"".join(baseline[a:b] for kind, a, b in segments(baseline) if kind != 0xC4) + baseline[start:]
write("no-tables.jpg", bare)
write("motion.jpg", baseline + b"\0\0\0\x18ftypmp42" + bytes(range(200)) + b"\xff\xd9")
write("padded.jpg", baseline + bytes(3000))
thumbnail = b"\xff\xe1" + (2 + 6 + len(bare)).to_bytes(2, "big") + b"Thumb\0" + bare
write("thumbnail.jpg", baseline[:2] + thumbnail + baseline[2:])
first = restarts.index(b"\xff\xd0")
# more than a byte or two before a restart marker is a part that lost its place
write("fillers.jpg", restarts[:first] + b"\xa5" * 9 + restarts[first:])

write("lost.jpg", baseline[:middle] + baseline[middle + 188:])
write("zeroed.jpg", baseline[:middle] + bytes(400) + baseline[middle + 400:])
write("cut.jpg", baseline[:middle])
write("cut-and-closed.jpg", baseline[:middle] + b"\xff\xd9")
write("cut-near-the-end.jpg", baseline[:-12] + b"\xff\xd9")
write("progressive-cut.jpg", progressive[:len(progressive) * 3 // 4] + b"\xff\xd9")
half = len(progressive) // 2
write("progressive-lost.jpg", progressive[:half] + progressive[half + 40:])
second = restarts.index(b"\xff\xd1")
write("restart-lost.jpg", restarts[:first] + restarts[second:])

with tempfile.TemporaryDirectory() as directory:
    scans, source = pathlib.Path(directory, "scans"), pathlib.Path(directory, "source.ppm")
    scans.write_text("0;\n1;\n2;\n")
    picture.save(source)
    write("apart.jpg", subprocess.run(["cjpeg", "-scans", scans, source], check=True, capture_output=True).stdout)
