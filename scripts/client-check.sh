#!/bin/sh
# The client crate as others get it: `cargo package`, unpacked elsewhere, built and tested without this workspace. Prints its size and how
# many crates it brings.
set -eu
cd "$(dirname "$0")/.."
. ./scripts/env.sh
repository=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo package --quiet --allow-dirty --no-verify -p eomt-edge-client
crate=$(ls -t target/package/eomt-edge-client-*.crate | head -n 1)
tar -xzf "$crate" -C "$work"
cd "$work/$(basename "$crate" .crate)"
CARGO_TARGET_DIR="$repository/target/client-check" cargo test --quiet --release
crates=$(cargo tree -e normal --prefix none | sort -u | grep -c .)
echo "client-check: $(wc -c < "$repository/$crate") bytes packed, $crates crates with itself"
