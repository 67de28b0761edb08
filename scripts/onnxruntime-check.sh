#!/bin/sh
# Runs the converted reference networks and the shipped model in ONNX Runtime, in a virtual environment under target/, and the
# comparison of `bench` with its library.
set -eu
cd "$(dirname "$0")/.."
environment=target/onnxruntime-check
if ! $environment/bin/python -c 'import numpy, onnx, onnxruntime, safetensors' 2>/dev/null; then
    rm -rf $environment # what was interrupted half-way
    python3 -m venv $environment
    $environment/bin/pip install --quiet onnxruntime onnx numpy safetensors
fi
$environment/bin/python scripts/onnxruntime_check.py target/release/eomt-edge tests/data/reference tests/data/checkpoint tests/data/videomt tests/data/chain
. ./scripts/env.sh
library=$(ls $environment/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.* | head -n 1)
EOMT_EDGE_TEST_ORT="$PWD/$library" cargo test --release $FEATURES --test cli onnxruntime_agrees
