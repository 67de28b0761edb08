#!/bin/sh
# All tests; scripts/setup.sh has installed what they need.
set -eu
cd "$(dirname "$0")/.."
. ./scripts/env.sh
# shellcheck disable=SC2086 # a list of options
cargo test --release $FEATURES
