"""Converts every reference checkpoint and compares ONNX Runtime's outputs with the expected ones, and with tract's on the shipped model.

usage: onnxruntime_check.py PROGRAM REFERENCE_DIR...
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file, save_file

OUTPUTS = ["class_queries_logits", "masks_queries_logits"]
TOLERANCE = 1e-3  # f32 sums in another order
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)


def run(path, pixel_values):
    """All outputs of an ONNX file by name."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"pixel_values": pixel_values})))


def compare(name, ours, expected):
    """Prints the largest difference; True when it is within the tolerance."""
    difference = max(float(np.abs(ours[key] - expected[key]).max()) for key in OUTPUTS)
    print(f"{name}: {difference:.1e}")
    return difference < TOLERANCE


def main():
    program, references = sys.argv[1], sys.argv[2:]
    passed = failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        onnx_file = Path(scratch, "model.onnx")
        for case in sorted(path.parent for root in references for path in Path(root).glob("*/expected.safetensors")):
            expected = load_file(case / "expected.safetensors")
            checkpoint = next((path for name in ("*.bin", "*.ckpt") for path in case.glob(name)), case)
            command = [program, "convert", checkpoint, "-o", onnx_file]
            if (case / "hints.json").exists():
                command += ["--hints", case / "hints.json"]
            if (case / "base").exists():
                command += ["--base", case / "base"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            onnx.checker.check_model(str(onnx_file), full_check=True)
            pixels = expected.get("pixel_values")
            if pixels is None:  # the authors' network takes RGB and normalizes inside
                pixels = (expected["image_rgb_u8_as_f32"] / 255 - MEAN) / STD
            ok = compare(case.name, run(onnx_file, pixels.astype(np.float32)), expected)
            passed, failed = passed + ok, failed + (not ok)
        shipped = Path("models/eomt-nano-scenes.onnx")
        pixels = np.random.default_rng(1).normal(size=(1, 3, 160, 160)).astype(np.float32)
        save_file({"pixel_values": pixels}, Path(scratch, "in.safetensors"))
        arguments = ["logits", "--model", shipped, Path(scratch, "in.safetensors"), "-o", Path(scratch, "out.safetensors")]
        subprocess.run([program, *arguments], check=True)
        ok = compare(f"{shipped.name}, against tract", run(shipped, pixels), load_file(Path(scratch, "out.safetensors")))
        passed, failed = passed + ok, failed + (not ok)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
