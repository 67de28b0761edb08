#!/usr/bin/env python3
"""What reuse over time saves and loses on clips: reuse.py MODEL CLIP... [--reuse THRESHOLD[,BUDGET[,REFRESH]]] [--count a72|a76]

A CLIP is a folder with images/, whose names are in order. With panoptic.json and panoptic/ beside them (COCO panoptic, as `eomt-edge
scenes` writes it), panoptic quality without and with reuse is measured, too. The program is target/release/eomt-edge, or $EOMT_EDGE.

--count also counts instructions of single frames under the emulator of a64count/ and models their cycles, without and with reuse:
$A64LAB is the folder of a64count/setup.sh, $EOMT_EDGE_AARCH64 the program for aarch64. --frames of the clip are counted, from its start;
the first one computes all patches, and the rows say what the others cost. Cycles of the last frame are modelled, those of the others
follow from their instructions. Masks of all queries.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "a64count"))
import table  # noqa: E402


def run(*command):
    """Standard output of a command that must succeed."""
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"reuse: {result.stderr.strip()}")
    return result.stdout


def quality(program, model, clip, reuse):
    """PQ in percent; None without a ground truth."""
    if not (clip / "panoptic.json").is_file():
        return None
    truth = ["--panoptic-json", clip / "panoptic.json", "--panoptic-dir", clip / "panoptic"]
    text = run(program, "evaluate", "--json", "--threads", 1, "--model", model, "--images", clip / "images", *truth, *reuse)
    return 100 * json.loads(text)["all"]["pq"]


def share(program, model, clip, reuse):
    """Share of the patches that are computed, and whole frames, over the clip once."""
    warm_up = 3
    frames = len(list((clip / "images").iterdir())) - warm_up
    text = run(program, "bench", "--json", "--threads", 1, "--model", model, "--image", clip / "images", "--frames", frames, *reuse)
    found = json.loads(text)["reuse"]
    return found["share"], found["full_frames"]


def counted(core, model, clip, frames, reuse):
    """Instructions of each frame, and modelled cycles per instruction of the last."""
    with tempfile.TemporaryDirectory() as place:
        out = os.path.join(place, "count")
        bench = ["bench", "--mark", "--threads", 1, "--all-queries", "--model", model, "--image", clip / "images", "--frames", frames]
        run("bash", HERE / "a64count/count.sh", core, out, os.environ["EOMT_EDGE_AARCH64"], *bench, *reuse)
        with open(out + ".txt", encoding="utf-8") as file:
            marks = [line.split() for line in file if line.startswith("mark")]
        instructions = [int(dict(field.split("=") for field in mark[1:])["insns"]) for mark in marks[1:]]
        cycles, covered = table.modelled_cycles(table.hot_blocks(out + ".hot"), table.MODELS[core])
        return instructions, cycles / covered


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("clips", type=pathlib.Path, nargs="+")
    parser.add_argument("--reuse", default="")
    parser.add_argument("--count", choices=sorted(table.MODELS))
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--only-count", action="store_true", help="no quality, no shares")
    options = parser.parse_args()
    program = os.environ.get("EOMT_EDGE", HERE.parent / "target/release/eomt-edge")
    reuse = ["--reuse", options.reuse] if options.reuse else ["--reuse"]
    for clip in options.clips:
        if not options.only_count:
            before, after = (quality(program, options.model, clip, more) for more in ([], reuse))
            computed, full = share(program, options.model, clip, reuse)
            scores = "" if before is None else f"PQ {before:.2f} without, {after:.2f} with ({after - before:+.2f}), "
            print(f"{clip.name}: {scores}{100 * computed:.1f} % of the patches computed, whole frames: {full}", flush=True)
        if options.count:
            all_anew, its_cycles = counted(options.count, options.model, clip, 2, [])
            frames, cycles = counted(options.count, options.model, clip, options.frames, reuse)
            today, first = all_anew[-1] * its_cycles, frames[0] * its_cycles
            others = [count * cycles for count in frames[1:]]
            mean = sum(others) / len(others)
            print(
                f"{clip.name} on {options.count}: G cycles a frame {today / 1e9:.3f} without; with {mean / 1e9:.3f} (mean of frames 2 to"
                f" {len(frames)}; {min(others) / 1e9:.3f} to {max(others) / 1e9:.3f}): {today / mean:.2f} times fewer; the first frame"
                f" {first / today:.3f} times as many; M instructions {all_anew[-1] / 1e6:.0f} without, {[round(n / 1e6) for n in frames]}",
                flush=True,
            )


main()
