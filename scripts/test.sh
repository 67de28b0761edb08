#!/bin/sh
# All tests; scripts/setup.sh has installed what they need. Goes on after a failure: the list at the end names them all.
set -eu
cd "$(dirname "$0")/.."
. ./scripts/env.sh
# shellcheck disable=SC2086 # a list of options
cargo test --release --no-fail-fast --workspace $FEATURES
