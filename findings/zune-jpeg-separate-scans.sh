#!/usr/bin/env bash
# zune-jpeg 0.5.15 (the decoder behind the crate `image`), against libjpeg-turbo's djpeg and Pillow.
# One would guess: a decoder in strict mode gives an error or the picture.
# What happens, with valid or damaged pictures that do not crash it:
#   a sequential picture whose colours come in scans of their own, at different resolutions (cjpeg -scans), is decoded to noise without
#   an error; and a picture cut in the middle and closed with an end-of-image marker is a good one, half of it grey, also in strict mode.
# Needs Rust, Python and cjpeg (Debian: libjpeg-turbo-progs); writes to a temporary folder only.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
command -v cjpeg >/dev/null || { echo "cjpeg is missing: apt-get install libjpeg-turbo-progs" >&2; exit 1; }
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q Pillow==12.0.0
mkdir -p "$folder/decode/src"
cat >"$folder/decode/Cargo.toml" <<'TOML'
[package]
name = "decode"
version = "0.1.0"
edition = "2021"
[dependencies]
zune-jpeg = "=0.5.15"
TOML
cat >"$folder/decode/src/main.rs" <<'RUST'
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let options = DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB);
    let bytes = std::fs::read(&path).unwrap();
    match zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(&bytes[..]), options).decode() {
        Ok(pixels) => std::fs::write(format!("{path}.rgb"), pixels).unwrap(),
        Err(error) => println!("refused: {error}"),
    }
}
RUST
cargo build -q --release --manifest-path "$folder/decode/Cargo.toml"
cat >"$folder/look.py" <<'PYTHON'
import pathlib, subprocess, sys
from PIL import Image, ImageFile
folder = pathlib.Path(sys.argv[1])
picture = Image.new("RGB", (160, 120))
picture.putdata([(x, 2 * y, (x + y) % 256) for y in range(120) for x in range(160)])
picture.save(folder / "source.ppm")
(folder / "scans").write_text("0;\n1;\n2;\n")
def encode(name, *words):
    data = subprocess.run(["cjpeg", *words, str(folder / "source.ppm")], check=True, capture_output=True).stdout
    (folder / name).write_bytes(data)
    return data
encode("usual.jpg")
encode("separate.jpg", "-scans", str(folder / "scans"))
usual = (folder / "usual.jpg").read_bytes()
(folder / "closed.jpg").write_bytes(usual[:len(usual) // 2 + 200] + b"\xff\xd9")
ImageFile.LOAD_TRUNCATED_IMAGES = True
off = {}
for name in ["usual.jpg", "separate.jpg", "closed.jpg"]:
    path = folder / name
    said = subprocess.run([str(folder / "decode/target/release/decode"), str(path)], check=True, capture_output=True, text=True).stdout
    rgb = pathlib.Path(f"{path}.rgb")
    if not rgb.exists():
        off[name] = said.strip()
        continue
    truth = Image.open(folder / "usual.jpg").convert("RGB").tobytes()
    off[name] = sum(abs(a - b) for a, b in zip(rgb.read_bytes(), truth)) / len(truth)
for name, value in off.items():
    print(f"{name}: {value if isinstance(value, str) else f'off by {value:.1f} levels in the mean, no error'}")
wrong = lambda value: not isinstance(value, str) and value > 20
sys.exit(0 if not isinstance(off["usual.jpg"], str) and off["usual.jpg"] < 2 and wrong(off["separate.jpg"]) and wrong(off["closed.jpg"]) else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py" "$folder"
