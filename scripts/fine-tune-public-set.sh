#!/bin/sh
# Fine-tunes on real photographs that a source package ships: hazelnuts with and without paint on them (otx 2.6.0, Apache-2.0), as class maps and as COCO instances.
# What docs/fine-tuning.md reports: scores before and after, and what int8 costs, on every third photograph.
#
#     sh scripts/fine-tune-public-set.sh OUT [CHECKPOINT]
#
# Fetches the package from PyPI (20 MB). A run that was interrupted goes on; one that is finished is only scored again.
set -eu
cd "$(dirname "$0")/.."
out=${1:?usage: fine-tune-public-set.sh OUT [CHECKPOINT]}
checkpoint=${2:-tests/data/nano}
. ./scripts/env.sh
# shellcheck disable=SC2086 # a list of options
cargo build --release $FEATURES
program=target/release/eomt-edge
mkdir -p "$out"

if [ ! -d "$out/set" ]; then
    python3 -m venv "$out/venv"
    "$out/venv/bin/pip" install --quiet numpy==2.4.6 pillow==13.0.0
    "$out/venv/bin/pip" download --quiet --no-deps --no-binary :all: -d "$out" otx==2.6.0
    tar xzf "$out/otx-2.6.0.tar.gz" -C "$out" otx-2.6.0/tests/assets/anomaly_hazelnut
    rm -rf "$out/set.new"
    "$out/venv/bin/python" scripts/public_set.py "$out/otx-2.6.0/tests/assets/anomaly_hazelnut" "$out/set.new"
    mv "$out/set.new" "$out/set"
fi

tune() { # tune NAME TASK STEPS OPTIONS..: trains, converts to f32 and int8, scores both on what was held out
    name=$1
    task=$2
    steps=$3
    shift 3
    $program train -o "$out/$name" --from "$checkpoint" --images "$out/set/images" "$@" --validate 3 --steps "$steps" --save-every 25
    $program convert "$out/$name/best" -o "$out/$name.onnx" --task "$task"
    # calibration sees none of the pictures that are held out
    $program convert "$out/$name/best" -o "$out/$name.int8.onnx" --task "$task" --precision int8 --calibrate "$out/set/calibration"
    for model in "$out/$name.onnx" "$out/$name.int8.onnx"; do
        $program evaluate --model "$model" --images "$out/set/images" "$@" --held-out 3
    done
    column -s, -t "$out/$name/validation.csv"
}

tune maps semantic 300 --class-maps "$out/set/maps" --class-names sound,paint
tune instances panoptic 100 --instances "$out/set/instances.json"
