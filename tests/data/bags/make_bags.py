#!/usr/bin/env python3
"""Writes the bags of this folder, and what their pictures are.

    python3 make_bags.py         # rosbags 0.11.9, mcap 1.6.0, numpy 2.4.6, opencv-python-headless 5.0.0, lz4 4.4.5, zstandard 0.25.0
    python3 make_bags.py rclpy   # in another environment: ros-kilted-rclpy 9.1.2, ros-kilted-rmw-fastrtps-cpp, ros-kilted-sensor-msgs, mcap

rosbags writes SQLite and MCAP with its three kinds of compression (zstd). What it does not write is made here: chunks in lz4 by mcap's own
writer, messages and files in lz4 as rosbags does them in zstd, a bag in two files, a SQLite log that was not merged. ROS's own recorder has
no wheel; rclpy serializes messages for `rclpy.mcap`.

`clip`: four 16x12 pictures of rgb8 on /camera/image_raw, 100 ms apart, between messages of another topic. Pixel (x, y) of picture t is
(7 x + 40 t, 9 y + 5 t, 3 x + 3 y) modulo 256. It was recorded 5 ms after its stamp, 1700000000.000000001 s and so on.
`encodings.mcap`: one picture of each encoding on a topic of that name, and `expected/NAME.png`: what numpy makes of it by the definition,
and OpenCV too (asserted here: the same, or within two levels for YUV, whose coefficients OpenCV rounds; without the border for Bayer).
"""

import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).parent
WIDTH, HEIGHT = 16, 12
START, STEP, LATE = 1_700_000_000_000_000_001, 100_000_000, 5_000_000


def clip_picture(t):
    import numpy as np

    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([7 * x + 40 * t, 9 * y + 5 * t, 3 * x + 3 * y], axis=-1).astype(np.uint8)


def with_rclpy():
    """An Image and a CompressedImage, as ROS itself serializes them."""
    import mcap.writer
    import sensor_msgs.msg
    from rclpy.serialization import serialize_message

    with open(HERE / "rclpy.mcap", "wb") as file:
        writer = mcap.writer.Writer(file, compression=mcap.writer.CompressionType.ZSTD)
        writer.start(profile="ros2", library="make_bags.py")
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"")
        channel = writer.register_channel("/camera/image_raw", "cdr", schema)
        for t in range(4):
            stamp = START + t * STEP
            image = sensor_msgs.msg.Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH, data=clip_picture(t).tobytes())
            image.header.stamp.sec, image.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
            image.header.frame_id = "camera"
            writer.add_message(channel, stamp + LATE, serialize_message(image), stamp)
        writer.finish()


if sys.argv[1:] == ["rclpy"]:
    with_rclpy()
    sys.exit()

import cv2
import lz4.frame
import mcap.writer
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_JAZZY)
Image, Compressed = store.types["sensor_msgs/msg/Image"], store.types["sensor_msgs/msg/CompressedImage"]
Header, Time, String = (store.types[name] for name in ["std_msgs/msg/Header", "builtin_interfaces/msg/Time", "std_msgs/msg/String"])
random = np.random.default_rng(20)


def header(stamp):
    return Header(stamp=Time(*divmod(stamp, 1_000_000_000)), frame_id="camera")


def image(stamp, encoding, data, step, big=0, size=(WIDTH, HEIGHT)):
    data = np.frombuffer(data, np.uint8)
    return Image(header=header(stamp), height=size[1], width=size[0], encoding=encoding, is_bigendian=big, step=step, data=data)


def compressed(stamp, form, data):
    return Compressed(header=header(stamp), format=form, data=np.frombuffer(data, np.uint8))


def bag(name, topics, plugin=StoragePlugin.MCAP, mode=CompressionMode.NONE):
    """topics: topic → messages, each (log time, message). Written in the order of time."""
    shutil.rmtree(HERE / name, ignore_errors=True)
    with Writer(HERE / name, version=9, storage_plugin=plugin) as writer:
        pass
    shutil.rmtree(HERE / name)
    writer = Writer(HERE / name, version=9, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        messages = []
        for topic, list_ in topics.items():
            connection = writer.add_connection(topic, list_[0][1].__msgtype__, typestore=store)
            messages += [(log, connection, store.serialize_cdr(message, message.__msgtype__)) for log, message in list_]
        for log, connection, data in sorted(messages, key=lambda message: message[0]):
            writer.write(connection, log, bytes(data))
    return HERE / name


def single(name, end, *arguments):
    """The only file of such a bag, without its directory."""
    directory = bag("single", *arguments)
    (file,) = [path for path in directory.iterdir() if path.name != "metadata.yaml"]
    target = HERE / f"{name}{end}"
    shutil.move(file, target)
    shutil.rmtree(directory)
    return target


def clip(times=range(4)):
    pictures = [(START + t * STEP + LATE, image(START + t * STEP, "rgb8", clip_picture(t).tobytes(), 3 * WIDTH)) for t in times]
    words = [(START + t * STEP + LATE + 1, String(data=f"between {t}")) for t in times]
    return {"/camera/image_raw": pictures, "/chatter": words}


def chunks_in_lz4(name, topics, pack=lambda data: data, compression=mcap.writer.CompressionType.LZ4):
    with open(HERE / name, "wb") as file:
        writer = mcap.writer.Writer(file, compression=compression, chunk_size=4096)
        writer.start(profile="ros2", library="make_bags.py")
        messages = []
        for topic, list_ in topics.items():
            kind = list_[0][1].__msgtype__
            channel = writer.register_channel(topic, "cdr", writer.register_schema(kind, "ros2msg", b""))
            messages += [(log, channel, store.serialize_cdr(message, kind)) for log, message in list_]
        for log, channel, data in sorted(messages, key=lambda message: message[0]):
            writer.add_message(channel, log, pack(bytes(data)), log)
        writer.finish()


def clips():
    sqlite, storage = StoragePlugin.SQLITE3, CompressionMode.STORAGE
    message, file = CompressionMode.MESSAGE, CompressionMode.FILE
    bag("directory-zstd", clip(), sqlite, file)
    bag("directory", clip(), StoragePlugin.MCAP, storage)
    plain = single("plain", ".db3", clip(), sqlite)
    single("message-zstd", ".db3", clip(), sqlite, message)
    single("chunk-zstd", ".mcap", clip(), StoragePlugin.MCAP, storage)
    single("message-zstd", ".mcap", clip(), StoragePlugin.MCAP, message)
    single("file-zstd", ".mcap.zstd", clip(), StoragePlugin.MCAP, file)
    chunks_in_lz4("chunk-lz4.mcap", clip())
    chunks_in_lz4("message-lz4.mcap", clip(), lz4.frame.compress, mcap.writer.CompressionType.NONE)
    (HERE / "file-lz4.db3.lz4").write_bytes(lz4.frame.compress(plain.read_bytes()))
    chunks_in_lz4("plain.mcap", clip(), compression=mcap.writer.CompressionType.NONE)
    (HERE / "file-lz4.mcap.lz4").write_bytes(lz4.frame.compress((HERE / "plain.mcap").read_bytes()))
    cameras = clip()
    cameras["/left/image_raw"] = clip(range(2))["/camera/image_raw"]
    single("two-cameras", ".mcap", cameras, StoragePlugin.MCAP, storage)
    single("no-pictures", ".mcap", {"/chatter": clip()["/chatter"]})


def split():
    """As `ros2 bag record --max-bag-size` leaves it: the tenth file comes after the ninth."""
    directory = HERE / "split"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for number, times in [(9, range(2)), (10, range(2, 4))]:
        shutil.move(single("part", ".mcap", clip(times), StoragePlugin.MCAP, CompressionMode.STORAGE), directory / f"split_{number}.mcap")
    list_ = "".join(f"    - split_{number}.mcap\n" for number in [9, 10])
    text = f"rosbag2_bagfile_information:\n  version: 5\n  storage_identifier: mcap\n  relative_file_paths:\n{list_}"
    (directory / "metadata.yaml").write_text(text)


def log():
    """As a recorder leaves it that was killed: the last two messages are in SQLite's log."""
    import sqlite3

    single("log", ".db3", clip(range(2)), StoragePlugin.SQLITE3)
    work = HERE / "work.db3"
    shutil.copy(HERE / "log.db3", work)
    connection = sqlite3.connect(work)
    connection.execute("PRAGMA journal_mode = WAL")
    shutil.copy(work, HERE / "log.db3")
    for stamp, message in clip(range(2, 4))["/camera/image_raw"]:
        data = bytes(store.serialize_cdr(message, message.__msgtype__))
        connection.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)", (stamp, data))
    connection.commit()
    shutil.copy(work, HERE / "log.db3")
    shutil.copy(HERE / "work.db3-wal", HERE / "log.db3-wal")
    connection.close()
    for path in HERE.glob("work.db3*"):
        path.unlink()


# --- encodings -------------------------------------------------------------------------------------------------------------------------


def padded(rows, pad=5):
    """Rows with bytes between them that nobody may look at."""
    rows = rows.reshape(rows.shape[0], -1)
    return np.hstack([rows, np.full((rows.shape[0], pad), 0xA5, np.uint8)]).tobytes(), rows.shape[1] + pad


def rgb_of_yuv(y, u, v):
    """ITU-R BT.601, limited range: what ROS's nodes take YUV for."""
    y, u, v = (y.astype(float) - 16) / 219, (u.astype(float) - 128) / 224, (v.astype(float) - 128) / 224
    r, b = y + 2 * (1 - 0.299) * v, y + 2 * (1 - 0.114) * u
    g = (y - 0.299 * r - 0.114 * b) / 0.587
    return np.clip(np.rint(255 * np.stack([r, g, b], axis=-1)), 0, 255).astype(np.uint8)


def close(a, b, levels):
    assert np.abs(a.astype(int) - b.astype(int)).max() <= levels, np.abs(a.astype(int) - b.astype(int)).max()


def narrow(levels):
    return np.rint(levels.astype(float) * 255 / 65535).astype(np.uint8)


def grey(levels):
    return np.repeat(levels[..., None], 3, axis=-1)


def demosaic(mosaic, pattern):
    """Bilinear, pixel by pixel; beyond the border the picture is mirrored, without its outermost row."""
    height, width = mosaic.shape
    sites = {(0, 0): pattern[0], (0, 1): pattern[1], (1, 0): pattern[2], (1, 1): pattern[3]}
    mirrored = np.pad(mosaic.astype(int), 1, mode="reflect")
    rgb = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            for channel, colour in enumerate("rgb"):
                near = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if sites[(y + dy) % 2, (x + dx) % 2] == colour]
                own = [place for place in near if place == (0, 0)]
                # of green's neighbours those that share a side, never those at the corners
                sides = [place for place in near if 0 in place]
                used = own or sides or near
                total = sum(mirrored[y + dy + 1, x + dx + 1] for dy, dx in used)
                rgb[y, x, channel] = (total + len(used) // 2) // len(used)
    return rgb


def encodings():
    expected, topics = {}, {}
    log_time = START + LATE

    def add(name, message, rgb):
        topics[f"/{name}"] = [(log_time, message)]
        expected[name] = rgb

    def raw(name, rows, rgb, encoding=None, big=0):
        data, step = padded(rows)
        add(name, image(START, encoding or name, data, step, big, (rgb.shape[1], rgb.shape[0])), rgb)

    rgb = clip_picture(1)
    alpha = np.full((HEIGHT, WIDTH, 1), 9, np.uint8)
    raw("rgb8", rgb, rgb)
    raw("bgr8", np.ascontiguousarray(rgb[..., ::-1]), rgb)
    raw("rgba8", np.concatenate([rgb, alpha], -1), rgb)
    raw("bgra8", np.concatenate([rgb[..., ::-1], alpha], -1), rgb)
    raw("mono8", rgb[..., 0], grey(rgb[..., 0]))
    wide = random.integers(0, 65536, (HEIGHT, WIDTH)).astype("<u2")
    raw("mono16", wide.view(np.uint8), grey(narrow(wide)))
    raw("mono16_big", wide.astype(">u2").view(np.uint8), grey(narrow(wide)), "mono16", 1)

    y = random.integers(16, 236, (HEIGHT, WIDTH)).astype(np.uint8)
    u, v = (random.integers(16, 241, (HEIGHT, WIDTH // 2)).astype(np.uint8) for _ in "uv")
    double = lambda plane: np.repeat(plane, 2, axis=1)
    yuv = rgb_of_yuv(y, double(u), double(v))
    yuy2 = np.stack([y[:, ::2], u, y[:, 1::2], v], -1).reshape(HEIGHT, 2 * WIDTH)
    uyvy = np.stack([u, y[:, ::2], v, y[:, 1::2]], -1).reshape(HEIGHT, 2 * WIDTH)
    close(yuv, cv2.cvtColor(yuy2.reshape(HEIGHT, WIDTH, 2), cv2.COLOR_YUV2RGB_YUY2), 2)
    close(yuv, cv2.cvtColor(uyvy.reshape(HEIGHT, WIDTH, 2), cv2.COLOR_YUV2RGB_UYVY), 2)
    for name, rows in [("yuv422_yuy2", yuy2), ("yuyv", yuy2), ("yuv422", uyvy), ("uyvy", uyvy)]:
        raw(name, rows, yuv)
    half = np.stack([u[::2], v[::2]], -1).reshape(HEIGHT // 2, WIDTH)
    quarter = lambda plane: np.repeat(double(plane[::2]), 2, axis=0)
    nv12 = np.vstack([y, half])
    close(rgb_of_yuv(y, quarter(u), quarter(v)), cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12), 2)
    raw("nv12", nv12, rgb_of_yuv(y, quarter(u), quarter(v)))

    for pattern in ["rggb", "bggr", "gbrg", "grbg"]:
        mosaic = random.integers(0, 65536, (HEIGHT, WIDTH)).astype("<u2")
        eight = narrow(mosaic)
        ours, theirs = demosaic(eight, pattern), cv2.cvtColor(eight, getattr(cv2, f"COLOR_Bayer{pattern.upper()}2RGB"))
        close(ours[1:-1, 1:-1], theirs[1:-1, 1:-1], 0)
        raw(f"bayer_{pattern}8", eight, ours)
        raw(f"bayer_{pattern}16", mosaic.view(np.uint8), ours)
    raw("bayer_grbg16_big", mosaic.astype(">u2").view(np.uint8), ours, "bayer_grbg16", 1)

    coded = lambda end, picture, *options: cv2.imencode(end, picture, list(options))[1].tobytes()
    jpeg = coded(".jpg", rgb[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 95)
    add("jpeg", compressed(START, "rgb8; jpeg compressed bgr8", jpeg), cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1)[..., ::-1])
    add("png", compressed(START, "png", coded(".png", rgb[..., ::-1])), rgb)
    add("png16", compressed(START, "mono16; png compressed ", coded(".png", wide)), grey(narrow(wide)))
    mosaic = coded(".png", eight)
    add("png_bayer", compressed(START, "bayer_grbg8; png compressed ", mosaic), ours)

    topics["/unknown"] = [(log_time, image(START, "32FC1", bytes(4 * WIDTH * HEIGHT), 4 * WIDTH))]
    topics["/short"] = [(log_time, image(START, "rgb8", bytes(3 * WIDTH * HEIGHT - 1), 3 * WIDTH))]
    topics["/narrow"] = [(log_time, image(START, "rgb8", bytes((3 * WIDTH - 1) * HEIGHT), 3 * WIDTH - 1))]
    topics["/empty"] = [(log_time, image(START, "rgb8", b"", 0, size=(0, 0)))]
    topics["/depth"] = [(log_time, compressed(START, "16UC1; compressedDepth png", bytes(12) + coded(".png", wide)))]
    single("encodings", ".mcap", topics, StoragePlugin.MCAP, CompressionMode.STORAGE)
    shutil.rmtree(HERE / "expected", ignore_errors=True)
    (HERE / "expected").mkdir()
    for name, picture in expected.items():
        cv2.imwrite(str(HERE / "expected" / f"{name}.png"), np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 9])


clips()
split()
log()
encodings()
