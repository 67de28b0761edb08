#!/bin/sh
# The main job: the daemon segments a moving scene; a second process subscribes and saves what it sees. Then both as moving pictures: these
# masks, and what a 320x240 display on the board shows.
set -eu
cd "$(dirname "$0")/.."
frames=${FRAMES:-40}
. ./scripts/env.sh

# shellcheck disable=SC2086 # a list of options
cargo build --release $FEATURES --bin eomt-edge --example moving_pictures
program=target/release/eomt-edge
pictures=target/release/examples/moving_pictures
run=$(mktemp -d)
rm -rf demo-output
cleanup() {
    [ -n "${daemon:-}" ] && kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null
    rm -rf "$run"
}
trap cleanup EXIT INT TERM

echo "daemon: $program run --model models/eomt-scenes-320.onnx --source scenes:4"
$program run --model models/eomt-scenes-320.onnx --source scenes:4 \
    --set ring.socket="$run/masks.sock" --set ring.include_frame=true --set source.size=384x288 --set source.fps=10 &
daemon=$!

echo "subscriber: $program view --frames $frames --save demo-output"
$program view --socket "$run/masks.sock" --frames "$frames" --save demo-output
$pictures masks demo-output demo-output/masks.png
$pictures display "$run/masks.sock" "$(((frames + 1) / 2))" demo-output/display.png
echo "look at demo-output/: $frames overlays, $(cd demo-output && ls | grep overlay | sed -n '1p;$p' | paste -sd ' ' | sed 's/ / to /')"
echo "moving pictures, for a browser: demo-output/masks.png, and demo-output/display.png as a small display shows it"
