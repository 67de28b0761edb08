#!/usr/bin/env python3
"""The modelled table: table.py NAME=OUT:CORE ..., where count.sh wrote OUT.txt and OUT.hot for CORE (a72 or a76). Names come in
pairs, ours and the peer's, whose ratio is a row too.

Instructions are counted; cycles are modelled: executions of each hot block times what llvm-mca gives for it in a steady state,
every load a hit in L1, every branch predicted, scaled from the blocks' share of all instructions to the whole.
"""

import os
import re
import subprocess
import sys

# llvm-mca has no Cortex-A76; the Neoverse N1 is its server twin
MODELS = {"a72": "cortex-a72", "a76": "neoverse-n1"}
ITERATIONS = 100
MULTIPLY_ADD = {"f32": ["fmla_f32v"], "int8": ["dot_i8", "mmla_i8", "int_mulacc_v"], "half": ["fmla_f16v", "bf16"]}
REST = {
    "vector": ["simd_other", "fp_scalar", "sve"],
    "ld/st vec": ["ld_simd", "st_simd"],
    "ld/st": ["ld_gpr", "st_gpr"],
    "alu": ["alu"],
    "branch": ["branch_sys"],
    "other": ["other"],
}


def tool(name, arguments, text):
    """Runs a tool of the lab's LLVM on `text`."""
    root = os.path.join(os.environ["A64LAB"], "l19/usr")
    libraries = [os.path.join(root, "lib", name) for name in os.listdir(os.path.join(root, "lib")) if name.endswith("-linux-gnu")]
    environment = dict(os.environ, LD_LIBRARY_PATH=":".join(libraries))
    command = [os.path.join(root, "lib/llvm-19/bin", name), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)


def last_inference(path):
    """Counts of the last section: {"insns": n, "alu": n, ...}."""
    with open(path) as file:
        marks = [line.split() for line in file if line.startswith("mark")]
    if len(marks) < 3:
        sys.exit(f"table: {path}: {len(marks)} markers; one after loading and at least two inferences are needed")
    return {key: int(value) for key, value in (field.split("=") for field in marks[-1][1:])}


def hot_blocks(path):
    """[(executions, instruction count, [instruction words])]."""
    blocks = []
    with open(path) as file:
        for line in file:
            fields = line.split()
            blocks.append((int(fields[0]), int(fields[1]), fields[-1].split(",")))
    return blocks


def disassemble(words):
    """{word: assembly}; a word that LLVM does not know is a nop."""

    def run(words):
        text = "".join(" ".join("0x" + word[i : i + 2] for i in (6, 4, 2, 0)) + "\n" for word in words)
        output = tool("llvm-mc", ["--disassemble", "-triple=aarch64", "-mattr=+all"], text).stdout
        return [line.strip() for line in output.splitlines() if line.strip() and not line.strip().startswith(".")]

    lines = run(words)
    if len(lines) == len(words):
        return dict(zip(words, lines))
    return {word: (run([word]) or ["nop"])[0] for word in words}


def modelled_cycles(blocks, model):
    """Sum over the blocks, and how many instructions they executed."""
    assembly = disassemble(sorted({word for _, _, words in blocks for word in words}))
    text = []
    for index, (_, _, words) in enumerate(blocks):
        lines = "\n".join(re.sub(r"\bsvc\b.*", "nop", assembly[word]) for word in words)
        text.append(f"# LLVM-MCA-BEGIN r{index}\n{lines}\n# LLVM-MCA-END r{index}\n")
    options = [f"-mcpu={model}", f"-iterations={ITERATIONS}", "-mtriple=aarch64", "-mattr=+all", "-call-latency=1"]
    options += ["-skip-unsupported-instructions=any", "-instruction-info=false", "-resource-pressure=false", "-"]
    result = tool("llvm-mca", options, "".join(text))
    if result.returncode:
        sys.exit(f"table: llvm-mca: {result.stderr.strip().splitlines()[0]}")
    regions = [int(index) for index in re.findall(r"Code Region - r(\d+)", result.stdout)]
    cycles = [int(count) for count in re.findall(r"Total Cycles:\s+(\d+)", result.stdout)]
    total = sum(blocks[region][0] * count / ITERATIONS for region, count in zip(regions, cycles))
    return total, sum(blocks[region][0] * blocks[region][1] for region in regions)


def main():
    columns = ["core", "what", "instr M", *MULTIPLY_ADD, *REST, "GMAC", "G cycles", "covered"]
    rows, warnings, before = [], [], []
    for argument in sys.argv[1:]:
        name, _, place = argument.partition("=")
        out, _, core = place.rpartition(":")
        counts = last_inference(out + ".txt")
        cycles, covered = modelled_cycles(hot_blocks(out + ".hot"), MODELS[core])
        share = covered / counts["insns"]
        millions = [sum(counts.get(key, 0) for key in keys) / 1e6 for keys in [*MULTIPLY_ADD.values(), *REST.values()]]
        numbers = [f"{million:.0f}" for million in [counts["insns"] / 1e6, *millions]]
        rows.append([core, name, *numbers, f"{counts['fused_macs'] / 1e9:.2f}", f"{cycles / share / 1e9:.2f}", f"{100 * share:.0f} %"])
        here = (counts["insns"], cycles / share)
        # ours come first, then ONNX Runtime on the same core and file
        if name.startswith("ours"):
            before.append((name, here))
        else:
            for label, ours in before:
                instructions, cycle_ratio = (f"{our / their:.3f}" for our, their in zip(ours, here))
                rows.append([core, f"{label} / theirs", instructions, *[""] * len(millions), "", cycle_ratio, ""])
            before = []
        if counts["vcpus"] != 1:
            warnings.append(f"{name} on {core} ran {counts['vcpus']} threads: its counts are of all of them")
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, *rows]:
        cells = [cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())
    print("one inference, one thread; instr M and the classes in millions: counted. f32, int8, half: multiply-accumulate instructions,")
    print("GMAC what they do together (fused ones; a multiplication that is added later counts as none). G cycles: modelled by llvm-mca")
    print("(every load hits L1, no branch is missed; Neoverse N1 for the A76), not a speed on a board.")
    for warning in warnings:
        print("NOTE:", warning)


if __name__ == "__main__":
    main()
