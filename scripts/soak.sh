#!/bin/sh
# The daemon at full speed, with readers that come, go, stop and cheat, reloads good and bad, a source that ends and comes back: memory, descriptors and
# threads must stay as they were, and every frame that the source gave must be counted. See soak.py.
#
#     sh scripts/soak.sh [FRAMES]         (a million by default; 20000 take a minute or two)
set -eu
cd "$(dirname "$0")/.."
. ./scripts/env.sh
cargo build --release $FEATURES
exec "$EOMT_EDGE_TEST_PYTHON" scripts/soak.py "${1:-1000000}"
