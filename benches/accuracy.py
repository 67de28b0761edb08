"""What quantization costs: mean relative error of both outputs (sum of differences over sum of magnitudes), int8 file against f32 file.

usage: accuracy.py F32.onnx INT8.onnx HEIGHT WIDTH SEED    (needs numpy, safetensors, and the built program)

The input is normal-distributed. EOMT_EDGE_ISA names the instruction set of both.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


PROGRAM = Path(__file__).parent.parent / "target/release/eomt-edge"


def main():
    exact, quantized, height, width, seed = sys.argv[1:]
    pixels = np.random.default_rng(int(seed)).standard_normal((1, 3, int(height), int(width))).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch, "in.safetensors")
        save_file({"pixel_values": pixels}, inputs)
        outputs = []
        for model in (exact, quantized):
            path = Path(scratch, "out.safetensors")
            subprocess.run([PROGRAM, "logits", "--model", model, inputs, "-o", path], check=True)
            outputs.append(load_file(path))
    for name, reference in outputs[0].items():
        error = np.abs(outputs[1][name] - reference).sum() / np.abs(reference).sum()
        print(f"{name}: {error:.4f}")


if __name__ == "__main__":
    main()
