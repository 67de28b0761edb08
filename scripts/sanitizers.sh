#!/bin/sh
# The ring's reader under tools that find what tests alone do not: sanitizers.sh loom | miri | address | thread
#   loom     all interleavings of the seqlock and of the wake-up: one writer, two readers (docs/reliability.md says with which bounds)
#   miri     undefined behaviour and data races in all that needs no system call: header, slots, rows, seqlock, hello
#   address  AddressSanitizer over all tests of the client crate, hostile daemons included
#   thread   ThreadSanitizer over the same, and over the C client with a writer and two readers in one process
# All but loom need a nightly toolchain (`rustup toolchain install nightly`). Each has a target directory of its own, with the client crate
# and its few dependencies in it.
set -eu
cd "$(dirname "$0")/.."
. ./scripts/env.sh
tool=${1:?loom, miri, address or thread}
export CARGO_TARGET_DIR="$PWD/target/$tool"

if [ "$tool" = loom ]; then
    RUSTFLAGS="--cfg loom" cargo test --release -p eomt-edge-client --test seqlock_model --test wake_model
    exit
fi
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "sanitizers: $tool needs a nightly toolchain, which is not here: rustup toolchain install nightly" >&2
    exit 1
fi
target=$(rustc +nightly -vV | sed -n 's/^host: //p')
case $tool in
miri)
    if ! cargo +nightly miri --version >/dev/null 2>&1; then
        echo "sanitizers: Miri is a component of the nightly toolchain that is not here: rustup +nightly component add miri rust-src" >&2
        exit 1
    fi
    cargo +nightly miri test -p eomt-edge-client --lib
    cargo +nightly miri test -p eomt-edge-client --doc seqlock
    ;;
address)
    RUSTFLAGS="-Zsanitizer=address" cargo +nightly test -p eomt-edge-client --target "$target" --lib --tests
    ;;
thread)
    TSAN_OPTIONS="suppressions=$PWD/scripts/tsan-suppressions.txt" RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
        cargo +nightly test -p eomt-edge-client --target "$target" --lib --tests
    mkdir -p "$CARGO_TARGET_DIR"
    # gcc says itself that its sanitizer knows no fences; what is shared here is atomic word by word
    ${CC:-cc} -std=c11 -O1 -g -Wall -Wextra -Werror -Wno-tsan -fsanitize=thread -pthread -I clients/c -o "$CARGO_TARGET_DIR/threads" tests/mask_ring/threads.c
    "$CARGO_TARGET_DIR/threads"
    ;;
*)
    echo "sanitizers: $tool is none of loom, miri, address, thread" >&2
    exit 2
    ;;
esac
