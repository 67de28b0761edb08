#!/bin/sh
# The C header as the package installs it, found by pkg-config and by cmake, against a real daemon: what both programs see is what the Python
# client sees. Installs cmake and pkg-config where they are missing.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh
. scripts/env.sh
dpkg-query -W cmake pkg-config python3-numpy >/dev/null 2>&1 || apt_install cmake pkg-config python3-numpy
fail() { echo "c-check: $*" >&2; exit 1; }
program=${EOMT_EDGE:-target/release/eomt-edge}
work=$(mktemp -d)
cleanup() {
    [ -z "${daemon:-}" ] || kill "$daemon" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# where the package's assets say that they go
for file in clients/c/eomt_edge.h clients/c/eomt-edge.pc; do
    place=$(sed -n "s|^ *\[\"$file\", \"\(.*\)/\", \"644\"\],|\1|p" Cargo.toml)
    [ -n "$place" ] || fail "Cargo.toml does not install $file"
    install -D -m 644 -t "$work/root/$place" $file
done
export PKG_CONFIG_SYSROOT_DIR="$work/root" PKG_CONFIG_LIBDIR="$work/root/usr/share/pkgconfig"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
[ "$(pkg-config --modversion eomt-edge)" = "$version" ] || fail "eomt-edge.pc has version $(pkg-config --modversion eomt-edge), Cargo.toml $version"
flags=$(pkg-config --cflags --libs eomt-edge)
echo "pkg-config: $flags"

# behind another header, which the flags must allow for
printf '#include <stdio.h>\n#include <eomt_edge.h>\nint main(void) { return 0; }\n' > "$work/late.c"
# shellcheck disable=SC2086 # a list of options
${CC:-cc} -std=c11 -Wall -Wextra -Werror -o "$work/late" "$work/late.c" $flags
# shellcheck disable=SC2086
${CC:-cc} -std=c11 -Wall -Wextra -Werror -O2 -o "$work/subscriber" examples/c/subscriber.c $flags
cmake --version | sed -n 1p
cmake -S examples/cmake -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS="-Wall -Wextra -Werror" > "$work/cmake.log" || { cat "$work/cmake.log"; fail "cmake"; }
cmake --build "$work/build" > "$work/cmake.log" || { cat "$work/cmake.log"; fail "cmake --build"; }

"$program" run --model models/eomt-nano-scenes.onnx --source scenes:3 --set ring.socket="$work/masks.sock" --set source.size=64x48 --set source.fps=5 \
    2> "$work/daemon.log" &
daemon=$!
PYTHONPATH=clients/python "$EOMT_EDGE_TEST_PYTHON" - "$work" <<'END' || { cat "$work/daemon.log"; fail "the programs differ"; }
import json, os, subprocess, sys, time
import eomt_edge_client

work = sys.argv[1]
socket, frames = f"{work}/masks.sock", 20
end = time.monotonic() + 120
while not os.path.exists(socket):
    assert time.monotonic() < end, "no daemon"
    time.sleep(0.05)
areas = subprocess.Popen([f"{work}/build/mask_areas", socket, str(frames)], stdout=subprocess.PIPE, text=True)
plain = subprocess.Popen([f"{work}/subscriber", "--socket", socket, "--frames", str(frames), "--json"], stdout=subprocess.PIPE, text=True)
theirs = {}
with eomt_edge_client.Subscriber(socket, timeout=60) as masks:
    while len(theirs) < frames:
        frame = next(masks)
        theirs[frame.sequence] = sum_of = {}
        for segment in frame.segments:
            sum_of[segment.label] = sum_of.get(segment.label, 0) + int((frame.ids == segment.id).sum())
both = 0
for line in areas.communicate()[0].splitlines():
    sequence, _, words = line.partition(":")
    got = {label: int(pixels) for label, _, pixels in (word.rpartition("=") for word in words.split())}
    if int(sequence) in theirs:
        assert got == theirs[int(sequence)], (line, theirs[int(sequence)])
        both += 1
counted = [json.loads(line) for line in plain.communicate()[0].splitlines()]
common = [line for line in counted if line["sequence"] in theirs]
for line in common:
    assert {s["label"] for s in line["segments"]} == set(theirs[line["sequence"]]), line
assert areas.returncode == plain.returncode == 0 and both >= 5 and len(common) >= 5, (areas.returncode, plain.returncode, both, len(common))
print(f"mask_areas (C++, cmake): {both} frames as Python has them; subscriber (C, pkg-config): {len(common)}")
END
echo "c-check: done"
