#!/usr/bin/env python3
"""What merging patch tokens costs and gives, as one Markdown table.

    merge_curve.py --eomt-edge PROGRAM --model MODEL.onnx --scenes DIR [--cost COST.onnx] [--aarch64 PROGRAM] [--merge RATIO[@BLOCK] ...]

For each value of --merge: panoptic quality and mIoU of MODEL on DIR (images/, panoptic/, panoptic.json), and multiply-accumulates of
COST.onnx (default: MODEL), masks of all queries included. With --aarch64, a program for 64-bit ARM, and $A64LAB, the folder of
a64count/setup.sh, also instructions counted under an emulator and cycles modelled for a Cortex-A76; see a64count/README.md for what
that is and is not. Quality needs no quiet machine, and neither does the rest.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def output(command, **options):
    result = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, **options)
    if result.returncode:
        raise SystemExit(f"merge_curve: {' '.join(map(str, command))}: {result.stderr.strip()}")
    return result.stdout


def quality(arguments, merge):
    """PQ of all, things and stuff, and mIoU, in percent."""
    data = pathlib.Path(arguments.scenes)
    command = [arguments.eomt_edge, "evaluate", "--model", arguments.model, "--merge", merge, "--images", data / "images"]
    command += ["--panoptic-json", data / "panoptic.json", "--panoptic-dir", data / "panoptic", "--threads", arguments.threads, "--json"]
    panoptic = json.loads(output(command))
    semantic = json.loads(output([*command, "--task", "semantic"]))
    return [100 * panoptic[part]["pq"] for part in ("all", "things", "stuff")] + [100 * semantic["miou"]]


def billions(arguments, merge):
    """Multiply-accumulates of one inference with the masks of all queries."""
    command = [arguments.eomt_edge, "bench", "--model", arguments.cost or arguments.model, "--merge", merge, "--threads", 1]
    found = json.loads(output([*command, "--frames", 1, "--all-queries", "--operators", "--json"]))
    return sum(kind["int8_macs"] + kind["f32_macs"] for kind in found["operators"]) / 1e9


def modelled(arguments, merge):
    """Billions of instructions and of cycles on a Cortex-A76."""
    model = arguments.cost or arguments.model
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/count"
        command = [arguments.aarch64, "bench", "--model", model, "--merge", merge, "--threads", 1, "--frames", 2, "--mark", "--all-queries"]
        output(["bash", HERE / "a64count/count.sh", "a76", place, *command])
        table = output(["python3", HERE / "a64count/table.py", f"merged={place}:a76"])
    row = next(line for line in table.splitlines() if line.startswith("a76"))
    numbers = re.split(r"\s{2,}", row.strip())
    return float(numbers[2]) / 1000, float(numbers[-2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eomt-edge", default="target/release/eomt-edge", metavar="PROGRAM")
    parser.add_argument("--model", metavar="MODEL.onnx", help="whose quality is measured")
    parser.add_argument("--scenes", metavar="DIR", help="pictures with their ground truth")
    parser.add_argument("--cost", metavar="COST.onnx", help="whose work is counted")
    parser.add_argument("--aarch64", metavar="PROGRAM", help="eomt-edge for 64-bit ARM")
    parser.add_argument("--merge", nargs="+", default=["0", "0.3", "0.5", "0.7", "0.9"], metavar="RATIO[@BLOCK]")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if not (arguments.model or arguments.cost):
        parser.error("--model or --cost is needed")
    if arguments.model and not arguments.scenes:
        parser.error("--model needs --scenes")
    if arguments.aarch64 and "A64LAB" not in os.environ:
        parser.error("--aarch64 needs $A64LAB, the folder of benches/a64count/setup.sh")

    columns = ["merge", *(["PQ", "things", "stuff", "mIoU"] if arguments.model else []), "GMAC"]
    columns += ["G instructions", "G cycles (A76, modelled)"] if arguments.aarch64 else []
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns), flush=True)
    for merge in arguments.merge:
        cells = [merge]
        if arguments.model:
            cells += [f"{value:.2f}" for value in quality(arguments, merge)]
        cells.append(f"{billions(arguments, merge):.2f}")
        if arguments.aarch64:
            cells += [f"{value:.2f}" for value in modelled(arguments, merge)]
        print("| " + " | ".join(cells) + " |", flush=True)


main()
