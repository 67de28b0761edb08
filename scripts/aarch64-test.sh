#!/bin/sh
# Compiles the test suite for 64-bit ARM, as the package is compiled, and runs it under qemu-user: all of it as a core with everything (-cpu max), and what
# computes or shares memory as a Cortex-A72 (no dot product, no half precision) too. Installs what is missing.
set -eu
cd "$(dirname "$0")/.."
. ./scripts/env.sh
. ./scripts/aarch64-env.sh
export EOMT_EDGE_TEST_CC=aarch64-linux-gnu-gcc
# the programs that the tests start; `cargo test --tests` builds none of the examples
cargo build --release --target aarch64-unknown-linux-gnu --bins --examples
for cpu in max cortex-a72; do
    runner=$(emulator $cpu)
    echo "aarch64-test: $runner"
    # What differs between the cores is the kernels, and how atomics are compiled: the second core runs what computes or shares memory.
    tests="--bins --tests" harness=
    if [ $cpu != max ]; then
        tests="--test allocations --test engine --test third_party --test int8 --test mask_ring --test processing --test reference"
        harness="-- --skip tools::" # converting, scoring, reading checkpoints
    fi
    # shellcheck disable=SC2086 # a list of options
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$runner" EOMT_EDGE_TEST_RUNNER="$runner" \
        cargo test --release --target aarch64-unknown-linux-gnu --lib $tests $harness
done
