#!/bin/sh
# All tests; scripts/setup.sh has installed what they need. Goes on after a failure: the list at the end names them all.
set -eu
cd "$(dirname "$0")/.."
. ./scripts/env.sh
failed=""
"$EOMT_EDGE_TEST_PYTHON" packaging/image/setup_test.py || failed="$failed packaging/image/setup_test.py"
"$EOMT_EDGE_TEST_PYTHON" scripts/supply_test.py || failed="$failed scripts/supply_test.py"
# shellcheck disable=SC2086 # a list of options
cargo test --release --no-fail-fast $PROGRAM || failed="$failed program"
# shellcheck disable=SC2086 # a list of options
cargo test --release --no-fail-fast $BRIDGE || failed="$failed bridge"
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
