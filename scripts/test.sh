#!/bin/sh
# All tests; scripts/setup.sh has installed what they need.
set -eu
cd "$(dirname "$0")/.."
. ./scripts/env.sh
cargo test --release
