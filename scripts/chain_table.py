"""Prints what scripts/chain-speed.sh measured as Markdown, beside the EoMT paper's Table 1.

usage: chain_table.py OUT
"""
import json
import re
import sys
from pathlib import Path

NAMES = ["vit-adapter-m2f", "no-adapter", "no-pixel-decoder", "no-multi-scale", "eomt"]
# Kerssies et al. 2025, Table 1: ViT-L, 640 x 640, on an H100: millions of parameters, GFLOPs (fvcore, one per multiply-add), frames a second.
PAPER = {
    "vit-adapter-m2f": (349, 830, 29),
    "no-adapter": (342, 700, 36),
    "no-pixel-decoder": (337, 685, 61),
    "no-multi-scale": (328, 673, 64),
    "eomt": (316, 669, 128),
}


def read(out, vit, name):
    path = out / f"{vit}-{name}.json"
    if not path.exists():
        return None
    report = json.loads(path.read_text())
    compared = report["compare_ort"]
    millions = float(re.search(r"([0-9.]+) million weights", (out / f"{vit}-{name}.log").read_text()).group(1))
    macs = sum(kind["f32_macs"] + kind["int8_macs"] for kind in report["operators"])
    return {"millions": millions, "gmacs": macs / 1e9, "ours": compared["ours"], "ort": compared["ort"], "report": report}


def main():
    out = Path(sys.argv[1])
    for vit in "sbl":
        rows = {name: read(out, vit, name) for name in NAMES}
        rows = {name: row for name, row in rows.items() if row}
        if not rows:
            continue
        last = rows.get("eomt")
        print(f"\nViT-{vit.upper()}:\n")
        print("| network | parameters, M | GFLOPs | ours, frames a second | of EoMT's | ONNX Runtime, frames a second | of EoMT's | paper: parameters, M | GFLOPs | of EoMT's frames a second |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for name, row in rows.items():
            cells = [name, f"{row['millions']:.0f}", f"{row['gmacs']:.0f}"]
            for side in ["ours", "ort"]:
                rates = [1e3 / row[side][key] for key in ["min_ms", "median_ms"]]
                cells.append(f"{rates[0]:.3g} ({rates[1]:.3g})")
                shares = [last[side][key] / row[side][key] for key in ["min_ms", "median_ms"]] if last else []
                cells.append(f"{shares[0]:.2f} ({shares[1]:.2f})" if shares else "")
            millions, gflops, rate = PAPER[name]
            cells += [str(millions), str(gflops)] if vit == "l" else ["", ""]
            cells.append(f"{rate / PAPER['eomt'][2]:.2f}" if vit == "l" else "")
            print("| " + " | ".join(cells) + " |")
        one = next(iter(rows.values()))["report"]
        print(f"\nONNX Runtime {one['compare_ort']['library_version']}, {one['compare_ort']['threads']} threads, kernels {one['isa']}.")


main()
