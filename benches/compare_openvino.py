"""Ours against OpenVINO, in turns: what an inference takes, and how far each is from the network in f32.

usage: compare_openvino.py OURS.onnx THEIRS.onnx F32.onnx [--threads N] [--rounds N] [--frames N] [--bf16] [--isa NAME] [--their-isa NAME] [--their-precision f32|bf16]
(needs openvino, numpy, safetensors from PyPI, and the built program; seen with openvino 2026.4.0)

OURS and THEIRS may be the same file; each engine gets the one that suits it best, made from one checkpoint. `--bf16` is for ours; OpenVINO uses bfloat16
by itself where the CPU has it. `--isa` caps ours, `--their-isa` is oneDNN's ONEDNN_MAX_CPU_ISA (AVX512_CORE_VNNI ...; below AVX-512, 2026.4.0 computes wrong norms:
../findings/openvino-isa-cap-layer-norm.sh). An answer that is far from f32 is no time worth printing and ends the run. Masks of all queries on both sides. One turn of
either side per round, minimum and median of all frames; a ratio counts, a single time does not.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

# No rounding of a sound network costs as much: int8 is at 0.02, bfloat16 at 0.01.
WRONG = 0.2

PROGRAM = Path(__file__).parent.parent / "target/release/eomt-edge"


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("ours", "theirs", "f32"):
        parser.add_argument(name, metavar=name.upper())
    for name, default in (("threads", 1), ("rounds", 5), ("frames", 5), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--isa")
    parser.add_argument("--their-isa")
    parser.add_argument("--their-precision", choices=("f32", "bf16"))
    return parser.parse_args()


def ours(options, *command):
    isa = {"EOMT_EDGE_ISA": options.isa} if options.isa else {}
    return subprocess.run([PROGRAM, *map(str, command)], check=True, env={**os.environ, **isa}, capture_output=True, text=True).stdout


def errors(outputs, exact):
    """Sum of differences over sum of magnitudes."""
    return {name: np.abs(outputs[name] - reference).sum() / np.abs(reference).sum() for name, reference in exact.items()}


def main():
    options = arguments()
    if options.their_isa:
        os.environ["ONEDNN_MAX_CPU_ISA"] = options.their_isa
    import openvino  # after the variable, which it reads once

    own, their, exact = options.ours, options.theirs, options.f32
    flags = ["--bf16"] if options.bf16 else []
    config = {"INFERENCE_NUM_THREADS": options.threads, "PERFORMANCE_HINT": "LATENCY"}
    if options.their_precision:
        config["INFERENCE_PRECISION_HINT"] = options.their_precision
    compiled = openvino.Core().compile_model(their, "CPU", config)
    names = [output.get_any_name() for output in compiled.outputs]
    size = list(compiled.input(0).shape)
    pixels = np.random.default_rng(options.seed).standard_normal(size).astype(np.float32)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(pixels))
    with tempfile.TemporaryDirectory() as scratch:
        inputs, path = Path(scratch, "in.safetensors"), Path(scratch, "out.safetensors")
        save_file({"pixel_values": pixels}, inputs)
        results = []
        for model, flag in ((exact, []), (own, flags)):
            ours(options, "logits", "--model", model, inputs, "-o", path, *flag)
            results.append(load_file(path))
    request.infer()
    theirs = {name: request.get_tensor(name).data for name in names}
    # of files by other programs, outputs may have other names
    theirs = {name: theirs[name] if name in theirs else next(value for value in theirs.values() if value.shape == reference.shape) for name, reference in results[0].items()}
    for name, outputs in (("ours", results[1]), ("OpenVINO", theirs)):
        if max(errors(outputs, results[0]).values()) > WRONG:
            sys.exit(f"{name} computes something else: errors {errors(outputs, results[0])}")
    times = {"ours": [], "OpenVINO": []}
    infer = None
    for _ in range(options.rounds):
        command = ["bench", "--model", own, "--threads", options.threads, "--frames", options.frames, "--all-queries", "--json", *flags]
        infer = json.loads(ours(options, *command))
        stage = infer["stages"]["infer"]
        times["ours"].append((stage["min_ms"], stage["median_ms"]))
        for _ in range(2):
            request.infer()
        frames = []
        for _ in range(options.frames):
            start = time.perf_counter()
            request.infer()
            frames.append(1000 * (time.perf_counter() - start))
        times["OpenVINO"].append((min(frames), statistics.median(frames)))
    print(f"{size[2]}x{size[3]}, {options.threads} threads, {options.rounds} rounds of {options.frames} frames, milliseconds: minimum, median of the rounds' medians; error of class logits, masks")
    rows = {}
    for name, outputs in (("ours", results[1]), ("OpenVINO", theirs)):
        error = errors(outputs, results[0])
        rows[name] = (min(low for low, _ in times[name]), statistics.median(median for _, median in times[name]))
        what = f"{infer['isa']}, {infer['precision']}{' in bfloat16' if infer.get('bf16') else ''}" if name == "ours" else f"{openvino.__version__.split('-')[0]}, {compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()}"
        print(f"{name:9} {rows[name][0]:8.1f} {rows[name][1]:8.1f}   " + ", ".join(f"{value:.4f}" for value in error.values()) + f"   ({what})")
    print(f"ratio     {rows['ours'][0] / rows['OpenVINO'][0]:8.2f} {rows['ours'][1] / rows['OpenVINO'][1]:8.2f}")


if __name__ == "__main__":
    main()
