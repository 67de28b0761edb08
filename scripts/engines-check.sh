#!/bin/sh
# Runs our files in other engines and writes the table of docs/engines.md; fails when an engine gives another verdict than the one
# that is written down. Pinned versions, in a virtual environment and a cargo project of their own under target/.
# LITERT=1 adds LiteRT by way of onnx2tf, which installs TensorFlow (2 GB).
set -eu
cd "$(dirname "$0")/.."
place=target/engines-check
engines=$place/python/bin/python
if [ ! -x $engines ]; then
    python3 -m venv $place/python
fi
$engines -m pip install --quiet numpy==2.4.6 safetensors==0.8.0 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 ncnn==1.0.20261020 MNN==3.6.1
$engines -m pip install --quiet --no-deps pnnx==20261020 # it names PyTorch as a dependency, which its program does not use

mkdir -p $place/rten/src
cp scripts/rten_run.rs $place/rten/src/main.rs
cat > $place/rten/Cargo.toml <<'END'
[package]
name = "rten-run"
version = "0.0.0"
edition = "2021"
publish = false

[dependencies]
rten = "=0.27.0"
rten-tensor = "=0.27.0"

[workspace]
END
. ./scripts/env.sh
cargo build --quiet --release --manifest-path $place/rten/Cargo.toml --target-dir $place/rten/target

litert=
if [ -n "${LITERT:-}" ]; then
    litert=$place/litert/bin/python
    if [ ! -x $litert ]; then
        python3 -m venv $place/litert
    fi
    $litert -m pip install --quiet onnx2tf==1.29.24
fi
LITERT_PYTHON=$litert $engines scripts/engines_check.py target/release/eomt-edge $place/rten/target/release/rten-run "$@"
