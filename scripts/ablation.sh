#!/bin/sh
# The paper's ablation on procedural scenes: small networks trained alike but for one choice each, and what every one scores on the same
# pictures, as a Markdown table.
#
#     sh scripts/ablation.sh OUT VAL [STEPS]     VAL: a COCO panoptic folder (images/, panoptic/, panoptic.json)
#
# A run that was interrupted goes on; one that is finished is not repeated. ONLY="never annealed" restricts the rows.
set -eu
cd "$(dirname "$0")/.."
out=${1:?usage: ablation.sh OUT VAL [STEPS]}
val=${2:?usage: ablation.sh OUT VAL [STEPS]}
steps=${3:-6000}
. ./scripts/env.sh
# shellcheck disable=SC2086 # a list of options
cargo build --release $FEATURES
program=target/release/eomt-edge
mkdir -p "$out"

# What all runs share unless a row says otherwise.
common="--scenes 7 --steps $steps --batch 8 --lr 1e-3 --patch 16 --heads 3 --queries 16 --colour 0 --scale 1,1"

run() { # run NAME OPTIONS..: trains once
    name=$1
    shift
    [ -f "$out/$name/config.json" ] && return
    # shellcheck disable=SC2086 # a list of options
    $program train -o "$out/$name" $common "$@" > "$out/$name.log"
}

score() { # score NAME MODEL: PQ, things, stuff in percent
    $program evaluate --model "$2" --images "$val/images" --panoptic-json "$val/panoptic.json" --panoptic-dir "$val/panoptic" \
        --threshold 0.5 --json > "$out/$1.json"
    python3 - "$out/$1.json" <<'END'
import json, sys
scores = json.load(open(sys.argv[1]))
print("%.1f | %.1f | %.1f" % tuple(100 * scores[key]["pq"] for key in ("all", "things", "stuff")))
END
}

row() { # row TITLE NAME MASKED: converts, with masks at inference (yes) or without (no), and prints a row
    case " ${ONLY:-$2} " in *" $2 "*) ;; *) return ;; esac
    model=$out/$2-$3.onnx
    hints=$out/hints-$3.json
    [ "$3" = yes ] && echo '{"masked_attention": true}' > "$hints" || echo '{"masked_attention": false}' > "$hints"
    [ -f "$model" ] || $program convert "$out/$2" -o "$model" --hints "$hints" --stuff floor,wall,sky > /dev/null
    echo "| $1 | $3 | $(score "$2-$3" "$model") |"
}

small="--width 96 --blocks 4 --size 96"
want() { case " ${ONLY:-$1} " in *" $1 "*) true ;; *) false ;; esac; }
# shellcheck disable=SC2086 # lists of options
{
    want annealed && run annealed --masking annealed $small --query-blocks 2
    want kept && run kept --masking kept $small --query-blocks 2
    want never && run never --masking never $small --query-blocks 2
    want l2-1 && run l2-1 --masking annealed $small --query-blocks 1
    want l2-3 && run l2-3 --masking annealed $small --query-blocks 3
    want size-128 && run size-128 --masking annealed --width 96 --blocks 4 --size 128 --query-blocks 2
    want width-48 && run width-48 --masking annealed --width 48 --blocks 4 --size 96 --query-blocks 2
    true
}

echo "| trained | masks at inference | PQ | things | stuff |"
echo "|---|---|---|---|---|"
row "masks kept to the end" kept yes
row "masks kept to the end" kept no
row "masks annealed" annealed no
row "never masked" never no
row "annealed, L2 = 1 (above: 2)" l2-1 no
row "annealed, L2 = 3" l2-3 no
row "annealed, input 128 (above: 96)" size-128 no
row "annealed, width 48 (above: 96)" width-48 no
