#!/bin/sh
# The main job: the daemon segments a moving scene; a second process subscribes and saves what it sees.
set -eu
cd "$(dirname "$0")/.."
frames=${FRAMES:-40}
. ./scripts/env.sh

cargo build --release $FEATURES
program=target/release/eomt-edge
run=$(mktemp -d)
rm -rf demo-output
cleanup() {
    [ -n "${daemon:-}" ] && kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null
    rm -rf "$run"
}
trap cleanup EXIT INT TERM

echo "daemon: $program run --model models/eomt-nano-scenes.onnx --source scenes:4"
$program run --model models/eomt-nano-scenes.onnx --source scenes:4 \
    --set ring.socket="$run/masks.sock" --set ring.include_frame=true --set source.size=384x288 --set source.fps=10 &
daemon=$!

echo "subscriber: $program view --frames $frames --save demo-output"
$program view --socket "$run/masks.sock" --frames "$frames" --save demo-output
echo "look at demo-output/: $frames overlays, $(ls demo-output | head -n 1) to $(ls demo-output | tail -n 1)"
