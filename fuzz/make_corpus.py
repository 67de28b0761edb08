"""Makes the first inputs of the fuzz targets in corpus/ from the repository's own data and by hand; those that were found stay.

    make build && python3 fuzz/make_corpus.py
"""

import io
import json
import pathlib
import struct
import subprocess
import tempfile
import zipfile

HERE = pathlib.Path(__file__).parent
DATA = HERE.parent / "tests" / "data"
CORPUS = HERE / "corpus"


def write(target, name, content):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def safetensors(path):
    """Names, types, shapes and bytes of a file."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}


def packed(tensors):
    """A safetensors file of zeros and ones."""
    header, at, data = {}, 0, b""
    for name, (kind, shape) in tensors.items():
        count = 1
        for size in shape:
            count *= size
        values = (b"\0\x3c" if name.endswith("weight") else b"\0\0") * count if kind == "F16" else struct.pack("<f", 1) * count
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(values)]}
        at += len(values)
        data += values
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tiny(tensors):
    """The network of hf-f16 with 2 instead of 16 channels, and with one layer less than its three."""
    size = {16: 2, 64: 4, 48: 6, 32: 4}
    small = {}
    for name, (kind, shape) in tensors.items():
        if name.startswith("layers.0."):
            continue
        for layer in (1, 2):
            name = name.replace(f"layers.{layer}.", f"layers.{layer - 1}.") if f"layers.{layer}." in name else name
        kernel = shape[2:] if len(shape) == 4 else []
        position = "position" in name and len(shape) == 2
        small[name] = (kind, [shape[0] if position else size.get(shape[0], shape[0])] + [size.get(n, n) for n in shape[1:len(shape) - len(kernel)]] + kernel)
    return small


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def pickled(tensors):
    """What torch.save writes of a state: {name: _rebuild_tensor_v2(storage, offset, size, stride, ...)}."""
    out = b"\x80\x02}("
    for key, (name, (_, shape)) in enumerate(tensors.items()):
        count, strides = 1, []
        for size in reversed(shape):
            strides.insert(0, count)
            count *= size
        numbers = lambda values: b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"
        storage = b"(" + text("storage") + b"ctorch\nHalfStorage\n" + text(str(key)) + text("cpu") + b"J" + struct.pack("<i", count) + b"tQ"
        arguments = b"(" + storage + b"K\0" + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)Rt"
        out += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"
    return out + b"u."


def zipped(tensors, pickle):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        def add(name, content):
            file.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
        add("data.pkl", pickle)
        add("byteorder", b"little")
        for key, (name, (_, shape)) in enumerate(tensors.items()):
            count = 1
            for size in shape:
                count *= size
            add(f"data/{key}", (b"\0\x3c" if name.endswith("weight") else b"\0\0") * count)
    return buffer.getvalue()


def checkpoints():
    network = tiny(safetensors(DATA / "checkpoint/hf-f16/model.safetensors"))
    config = json.loads((DATA / "checkpoint/hf-f16/config.json").read_text())
    config.update(hidden_size=2, num_hidden_layers=2, num_attention_heads=1, mlp_ratio=2)
    config = json.dumps(config).encode()
    weights = packed(network)
    (CORPUS / "weights.safetensors").write_bytes(weights)
    write("safetensors", "network", weights)
    write("safetensors", "network-and-config", config + b"\n%%\n" + weights)
    write("safetensors", "empty", packed({}))
    write("safetensors", "two", packed({"a": ("F32", [2, 2]), "b": ("F16", [0])}))

    few = dict(list(network.items())[:3])
    write("torch_zip", "network", zipped(network, pickled(network)))
    write("torch_zip", "three-tensors", zipped(few, pickled(few)))
    write("pickle", "three-tensors", pickled(few))
    write("pickle", "nested", b"\x80\x02}(" + text("state_dict") + pickled(few)[2:-1] + text("epoch") + b"K\x03u.")
    write("pickle", "memo", b"\x80\x04\x95\x1e\0\0\0\0\0\0\0}\x94(\x8c\x01a\x94]\x94(K\x01K\x02e\x8c\x01b\x94h\x02u.")
    for case, file in (("lightning", "epoch=3-step=7.ckpt"), ("attr-eomt", "last.pt"), ("lightly-dinov3", "exported_best.pt"),
                       ("upstream-strided", "epoch=3.ckpt")):
        with zipfile.ZipFile(DATA / "checkpoint" / case / file) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            write("pickle", case, archive.read(name))

    cut = b"\n%%\n"
    hints = (DATA / "checkpoint/upstream-masked/hints.json").read_bytes()
    index = json.dumps({"metadata": {}, "weight_map": {name: "model.safetensors" for name in network}}).encode()
    processor = b'{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "size": {"height": 64, "width": 64}, "do_resize": true}'
    write("json", "config", config)
    write("json", "config-and-hints", config + cut + hints)
    write("json", "index", config + cut + cut[1:] + index)
    write("json", "processor", config + cut + cut[1:] + cut[1:] + processor)
    write("json", "hints-alone", b"{}" + cut + b'{"image_size": 64, "num_attention_heads": 1, "labels": ["floor", "box"], "stuff_classes": [0]}')


def own_models():
    """The tiny network as our converter writes it."""
    with tempfile.TemporaryDirectory() as folder:
        config, weights = (CORPUS / "safetensors/network-and-config").read_bytes().split(b"\n%%\n", 1)
        (pathlib.Path(folder) / "config.json").write_bytes(config)
        (pathlib.Path(folder) / "model.safetensors").write_bytes(weights)
        for precision in ("f32", "int8"):
            model = pathlib.Path(folder) / "model.onnx"
            words = [HERE.parent / "target/release/eomt-edge", "convert", folder, "-o", model, "--precision", precision]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            write("model", f"ours-{precision}", model.read_bytes())


def models():
    for case, names in (("quantized", ("channels", "erf", "moved", "product", "sixteen", "softmax")),
                        ("attention", ("added", "causal", "groups", "heads", "products"))):
        for name in names:
            write("model", f"{case}-{name}", (DATA / "foreign" / case / f"{name}.onnx").read_bytes() + b"\n%%\n" + (DATA / "foreign" / case / "config.json").read_bytes())
    whole = DATA / "foreign/normalization"
    write("model", "network", (whole / "inside-dynamo.onnx").read_bytes() + b"\n%%\n" + (whole / "config.json").read_bytes())
    write("model", "other", (DATA / "other.onnx").read_bytes())


def pictures():
    for path in sorted((DATA / "jpeg").glob("*.jpg")):
        write("jpeg", path.stem, path.read_bytes())
    write("png", "truth", (DATA / "jpeg/truth.png").read_bytes())
    for name in ("oled-128x32", "oled-starting-128x64", "stopped-128x160"):
        write("png", name, (DATA / f"display/{name}.png").read_bytes())
    write("png", "labels", (DATA / "clip-expected/000000.png").read_bytes())
    write("png", "a-jpeg", (DATA / "jpeg/baseline.jpg").read_bytes())


def configurations():
    written = (HERE.parent / "config/eomt-edge.toml").read_bytes()
    write("config", "defaults", written)
    uncommented = b"\n".join(line[2:] if line.startswith(b"# ") and b" = " in line else line for line in written.split(b"\n"))
    write("config", "every-key", uncommented)
    write("config", "items", b'[ring]\nslots = 4\n\n%%\nmodel.threads=2\nsource.uri="scenes:7"\nring.mode=660\ncamera.controls.gain=auto\n')
    write("config", "pipe", b'[source]\nuri = "pipe:-"\nsize = "640x480"\nformat = "nv12"\nstride = "gstreamer"\nend = "stop"\ncolour = "bt709"\n')
    write("config", "exec", b'\n%%\nsource.uri=exec:rpicam-vid -t 0 -o -\nsource.stride=704\n')
    write("config", "replay", b'[source]\nuri = "replay:/data@12.5"\nfps = 0.0\n[camera]\ncrop = "480x480+80+0"\nrotate = 90\nflip = "both"\n')


def rings_and_setup():
    hello = bytes([0])  # two descriptors, a pipe, the seals of a server
    shape = struct.pack("<H", 1 | 7 << 2 | 7 << 8 | 1 << 13 | 1 << 15)
    program = bytes([0, 0, 3, 3, 8, 0, 0, 5, 5, 9, 7, 1]) + struct.pack("<Q", 77) + bytes([8, 2, 3, 9])
    write("ring_client", "sound", shape + bytes([0]) + hello + program)
    write("ring_client", "eventfd", shape + bytes([0]) + bytes([1 << 6]) + program)
    write("ring_client", "header", shape + bytes([2, 4]) + struct.pack("<Q", 64) + bytes([8]) + struct.pack("<Q", 128) + hello + program)
    write("ring_client", "refusal", shape + bytes([0, 2 << 2, 128]) + b"OLEHTMOE"[::-1] + struct.pack("<II", 1, 1) + bytes(24) + b"it is full")
    write("ring_client", "closed", shape + bytes([0]) + hello + bytes([0, 0, 1, 1, 9, 4, 1, 7, 5, 7]))
    write("ring_client", "rows", shape + bytes([0]) + hello + bytes([0, 8, 1, 1]) + struct.pack("<HHf6I", 1, 1, 0.5, 60, 60, 9, 9, 4, 0) + bytes([8]))
    write("ring_client", "sealed", shape + bytes([0, 3]) + struct.pack("<I", 1 << 16) + bytes([0, 15]) + program)

    setup = (HERE.parent / "packaging/image/eomt-edge-setup.txt").read_bytes()
    lines = b"hostname = cam\nuser = robo\nssh_key = ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA me\nwifi_ssid = Home\n"
    secret = lines + b"wifi_password = S3cr3tT0ken\ntimezone = Etc/UTC\nwifi_country = DE\n#pasword: S3cr3tT0ken\n"
    write("setup", "template", setup)
    write("setup", "lines", secret)
    write("setup", "utf-16", secret.decode().encode("utf-16"))
    write("setup", "latin-1", secret.replace(b"me", b"m\xe4").replace(b"\n", b"\r\n"))

    write("ring_server", "polite", bytes([0, 0, 1, 0, 5, 0, 3, 0]))
    write("ring_server", "talks", bytes([0, 0, 7, 16]) + bytes(16) + bytes([9, 0, 6, 0]))
    write("ring_server", "tampers", bytes([0, 0, 8, 1, 8, 1 + 2 * 16, 8, 1 + 4 * 16, 8, 1 + 8 * 16, 8, 16, 10, 0]))
    write("ring_server", "crowd", bytes([1, 0] * 10 + [2, 15, 3, 0, 4, 0]))
    write("ring_server", "reload", bytes([0, 0, 0, 0, 11, 0, 0, 11]))
    write("ring_server", "closes", bytes([0, 0, 10, 0, 10, 0, 6, 32, 5, 0]))


def cdr(*fields):
    """Little-endian CDR of a header and of texts, numbers and bytes."""
    data = struct.pack("<iII", 1_700_000_000, 1, 7) + b"camera\0"
    for field in fields:
        if isinstance(field, tuple):  # one byte
            data += bytes(field)
            continue
        data += bytes(-len(data) % 4)
        if isinstance(field, int):
            data += struct.pack("<I", field)
        elif isinstance(field, str):
            data += struct.pack("<I", len(field) + 1) + field.encode() + b"\0"
        else:
            data += struct.pack("<I", len(field)) + field
    return b"\0\1\0\0" + data


def bags():
    for name in ["plain.mcap", "chunk-zstd.mcap", "chunk-lz4.mcap", "message-zstd.mcap", "file-zstd.mcap.zstd", "plain.db3", "file-lz4.db3.lz4"]:
        write("bag", name, (DATA / "bags" / name).read_bytes())
    for name, bits in [("rgb8", 24), ("bgra8", 32), ("mono16", 16), ("uyvy", 16), ("nv12", 12), ("bayer_grbg8", 8), ("bayer_rggb16", 16)]:
        step = 6 * (8 if name == "nv12" else bits) // 8 + 2
        data = bytes(range(37, 37 + step * (6 if name == "nv12" else 4)))
        write("ros_image", name, cdr(4, 6, name, (1,), step, data))
    for name in ["jpeg/baseline.jpg", "bags/expected/mono16.png"]:
        kind = "jpeg" if name.endswith("jpg") else "bayer_rggb8; png compressed "
        write("ros_image", pathlib.Path(name).name, cdr(kind, (DATA / name).read_bytes()))


if __name__ == "__main__":
    bags()
    checkpoints()
    own_models()
    models()
    pictures()
    configurations()
    rings_and_setup()
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files)} bytes")
