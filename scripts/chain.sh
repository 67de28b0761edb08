#!/bin/sh
# How good the networks between ViT-Adapter with Mask2Former and EoMT are (EoMT paper, Table 1): trained alike on procedural scenes from random
# weights, three seeds each, and what each scores on the same pictures, as a Markdown table.
#
#     sh scripts/chain.sh OUT VAL [STEPS]     VAL: a COCO panoptic folder (images/, panoptic/, panoptic.json)
#
# A run that was interrupted goes on; one that is finished is not repeated. SEEDS="1 2 3" and NAMES restrict the runs.
set -eu
cd "$(dirname "$0")/.."
out=${1:?usage: chain.sh OUT VAL [STEPS]}
val=${2:?usage: chain.sh OUT VAL [STEPS]}
steps=${3:-6000}
. ./scripts/env.sh
# shellcheck disable=SC2086 # a list of options
cargo build --release $FEATURES
program=target/release/eomt-edge
mkdir -p "$out"
common="--scenes 7 --steps $steps --batch 8 --lr 1e-3 --width 96 --heads 3 --blocks 4 --size 96 --queries 16 --colour 0 --scale 1,1"
names=${NAMES:-vit-adapter-m2f no-adapter no-pixel-decoder no-multi-scale eomt}
seeds=${SEEDS:-1 2 3}
for seed in $seeds; do
    for name in $names; do
        case=$out/$name-$seed
        [ -f "$case.json" ] && continue
        # decoders in proportion to the encoder, as 256 is to the 768 of a ViT-B
        options="--decoder-width 32 --decoder-layers 3"
        case $name in
        eomt) options="--query-blocks 2" ;;
        vit-adapter-m2f | no-adapter) options="$options --pixel-decoder-layers 2" ;;
        esac
        # shellcheck disable=SC2086 # lists of options
        $program train -o "$case" --architecture "$name" --seed "$seed" $common $options > "$case.log"
        $program convert "$case" -o "$case.onnx" --stuff floor,wall,sky > /dev/null
        $program evaluate --model "$case.onnx" --images "$val/images" --panoptic-json "$val/panoptic.json" --panoptic-dir "$val/panoptic" \
            --threshold 0.5 --json > "$case.part"
        mv "$case.part" "$case.json"
    done
done
python3 - "$out" "$names" "$seeds" <<'END'
import json, sys
from pathlib import Path
out, names, seeds = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split()
print("| network | PQ, mean of the seeds | least | most |\n|---|---|---|---|")
for name in names:
    scores = [100 * json.loads((out / f"{name}-{seed}.json").read_text())["all"]["pq"] for seed in seeds]
    print(f"| {name} | {sum(scores) / len(scores):.1f} | {min(scores):.1f} | {max(scores):.1f} |")
END
