#!/bin/sh
# Runs the converted reference networks and the shipped model in ONNX Runtime, in a virtual environment under target/.
set -eu
cd "$(dirname "$0")/.."
environment=target/onnxruntime-check
if [ ! -x $environment/bin/python ]; then
    python3 -m venv $environment
    $environment/bin/pip install --quiet onnxruntime onnx numpy safetensors
fi
$environment/bin/python scripts/onnxruntime_check.py target/release/eomt-edge tests/data/reference tests/data/checkpoint
