#!/bin/sh
# Compiles what computes or shares memory for 64-bit ARM, as the package is compiled, and tests it under qemu-user: as a core with everything
# (-cpu max), then the kernels once more as a Cortex-A72 (no dot product, no half precision). With `all` as its argument: the whole suite on the
# first core, the crates' own tests and the ring on the second. Installs what is missing.
set -eu
cd "$(dirname "$0")/.."
. ./scripts/env.sh
. ./scripts/aarch64-env.sh
export EOMT_EDGE_TEST_CC=aarch64-linux-gnu-gcc
# the programs that the tests start; `cargo test --tests` builds none of the examples
cargo build --release --target $aarch64 --bins --examples
tests() { # tests CPU OPTION...
    runner=$(emulator "$1")
    shift
    echo "aarch64-test: $runner"
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$runner" EOMT_EDGE_TEST_RUNNER="$runner" \
        cargo test --release --no-fail-fast --target $aarch64 -p eomt-edge "$@"
}
if [ "${1:-}" = all ]; then
    tests max -p eomt-edge-core -p eomt-edge-client -p eomt-edge-host -p eomt-edge-tools --lib --bins --tests
    tests cortex-a72 -p eomt-edge-core -p eomt-edge-client --lib --test mask_ring
    exit
fi
# The crates' own tests, and of the program's those in which ARM code computes or shares memory. Readers of forged rings run the same C and
# Python on every machine, at length.
tests max -p eomt-edge-core -p eomt-edge-client --lib --test mask_ring --test reference -- --skip liars:: --skip tampering::
# What differs between the cores is the kernels.
tests cortex-a72 -p eomt-edge-core --lib -- kernels:: model::
