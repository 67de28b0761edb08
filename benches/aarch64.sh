#!/bin/bash
# aarch64.sh MODEL.onnx SIZE [MODEL.f32.onnx]: what one inference costs on a Cortex-A72 (Raspberry Pi 4) and a Cortex-A76 (Pi 5),
# ours and ONNX Runtime's, on the same files. Instructions are counted under an emulator, cycles are modelled: not a speed on a board.
#
# SIZE is the network's input, N or HEIGHTxWIDTH. The lab is set up in target/a64count, or is the one in $A64LAB.
# EOMT_EDGE_AARCH64 may name a finished program, which is then not built.
set -euo pipefail
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: $0 MODEL.onnx SIZE [MODEL.f32.onnx]" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/env.sh"
size=$2
height=${size%x*} width=${size#*x}
models=("$1")
[ $# -lt 3 ] || models+=("$3")
for model in "${models[@]}"; do
    [ -f "$model" ] || { echo "aarch64: $model: there is no such file" >&2; exit 1; }
done

export A64LAB=${A64LAB:-$root/target/a64count}
mkdir -p "$A64LAB"
A64LAB=$(cd "$A64LAB" && pwd)
program=${EOMT_EDGE_AARCH64:-}
if [ -z "$program" ]; then
    (cd "$root" && . scripts/aarch64-env.sh && CARGO_TARGET_DIR=target/portable cargo build --release --target $aarch64 --bin eomt-edge) >&2
    program=$root/target/portable/aarch64-unknown-linux-gnu/release/eomt-edge
fi
bash "$root/benches/a64count/setup.sh" >&2
library=$(ls "$A64LAB"/ort/onnxruntime/capi/libonnxruntime.so.* | head -n 1)

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
rows=()
run() { # run CORE NAME PROGRAM ARGS...: counts, and remembers the row
    local core=$1 name=$2 place
    shift 2
    place=$out/${#rows[@]}
    echo "aarch64: counting $name on $core" >&2
    bash "$root/benches/a64count/count.sh" "$core" "$place" "$@" >&2
    rows+=("$name=$place:$core")
}
for core in a72 a76; do
    for model in "${models[@]}"; do
        name=$(basename "$model" .onnx)
        run $core "ours, $name" "$program" bench --model "$model" --threads 1 --frames 2 --mark
        run $core "ours, $name, all queries" "$program" bench --model "$model" --threads 1 --frames 2 --mark --all-queries
        run $core "ONNX Runtime, $name" "$A64LAB/ortrun.a64" "$library" "$model" 2 "$height" "$width"
    done
done
python3 "$root/benches/a64count/table.py" "${rows[@]}"
