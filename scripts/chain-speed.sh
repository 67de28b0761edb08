#!/bin/sh
# How fast the networks between ViT-Adapter with Mask2Former and EoMT are (EoMT paper, Table 1): random weights, this engine and ONNX Runtime
# in turns, as Markdown tables.
#
#     sh scripts/chain-speed.sh OUT [LIBRARY]        LIBRARY: ONNX Runtime's, default that of make onnxruntime-check
#
# VITS="s b l" chooses the encoders, SIZE=640 the input, FRAMES=10 how often each engine runs, NAMES the networks. What is measured already
# is not measured again.
set -eu
cd "$(dirname "$0")/.."
out=${1:?usage: chain-speed.sh OUT [LIBRARY]}
library=${2:-$(ls target/onnxruntime-check/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.* 2> /dev/null | head -n 1)}
[ -f "$library" ] || { echo "chain-speed: no ONNX Runtime: name its library, or run make onnxruntime-check first" >&2 && exit 2; }
size=${SIZE:-640}
. ./scripts/env.sh
if [ -z "${PROGRAM_FILE:-}" ]; then
    # shellcheck disable=SC2086 # a list of options
    cargo build --release $FEATURES
fi
program=${PROGRAM_FILE:-target/release/eomt-edge}
mkdir -p "$out"
for vit in ${VITS:-s b l}; do
    case $vit in
    s) shape="--width 384 --heads 6 --blocks 12" joins=3 ;;
    b) shape="--width 768 --heads 12 --blocks 12" joins=3 ;;
    l) shape="--width 1024 --heads 16 --blocks 24" joins=4 ;;
    *) echo "VITS: s, b and l, not $vit" >&2 && exit 2 ;;
    esac
    for name in ${NAMES:-vit-adapter-m2f no-adapter no-pixel-decoder no-multi-scale eomt}; do
        case=$out/$vit-$name
        [ -f "$case.json" ] && continue
        rm -rf "$case" "$case.onnx"
        options="--scenes 1 --steps 0 --architecture $name --size $size --queries 200 $shape"
        [ $name = eomt ] && options="$options --query-blocks $joins"
        # shellcheck disable=SC2086 # a list of options
        $program train -o "$case" $options > "$case.log"
        # random weights want no check of each file, which takes minutes
        $program convert "$case" -o "$case.onnx" --stuff floor,wall,sky --no-check > /dev/null
        $program bench --model "$case.onnx" --threads "${THREADS:-2}" --frames "${FRAMES:-10}" --all-queries --operators --json \
            --compare-ort "$library" > "$case.part"
        mv "$case.part" "$case.json"
        rm -rf "$case" "$case.onnx"
    done
done
python3 scripts/chain_table.py "$out"
