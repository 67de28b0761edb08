#!/bin/sh
# Recordings of a running daemon, read back by programs that we did not write: rosbags, mcap with mcap-ros2-support, @mcap/core, Rerun,
# each from its registry. They are compared with what the ring's Python client saw. Recorders are stopped, killed, given another model and a
# full disk. Needs python3-venv and npm; installs what is missing.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
environment=$root/target/record-check
if ! command -v npm >/dev/null || ! dpkg-query -W python3-venv >/dev/null 2>&1; then
    . scripts/apt.sh
    apt_install npm python3-venv
fi
python=${EOMT_EDGE_TEST_PYTHON:-python3}
if ! "$environment/bin/python" -c 'import mcap, mcap_ros2, numpy, PIL, rerun, rosbags' 2>/dev/null; then
    rm -rf "$environment" # what was interrupted half-way
    "$python" -m venv "$environment"
    "$environment/bin/pip" install --quiet rosbags==0.11.9 mcap==1.6.0 mcap-ros2-support==0.6.0 'rerun-sdk==0.41.*' numpy pillow
fi
if [ ! -d "$environment/node/node_modules/@mcap/nodejs" ]; then
    mkdir -p "$environment/node"
    (cd "$environment/node" && npm init -y >/dev/null &&
        npm install --silent --no-fund --no-audit @mcap/core@2.2.2 @mcap/nodejs@1.0.2 @mcap/support@1.1.0 @foxglove/rosmsg@5.0.5 @foxglove/rosmsg2-serialization@3.1.0)
fi
export EOMT_EDGE_BRIDGE="${EOMT_EDGE_BRIDGE:-$root/target/release/eomt-edge-bridge}"
export EOMT_EDGE="${EOMT_EDGE:-$root/target/release/eomt-edge}"
export NODE_PATH="$environment/node/node_modules"
# a mount namespace, for a disk that is full
exec unshare --map-root-user --mount "$environment/bin/python" scripts/record_check.py "$@"
