#!/bin/sh
# The Debian package for this machine, or for arm64: sh scripts/package.sh [arm64]. Leaves it in target/debian/.
set -eu
cd "$(dirname "$0")/.."
. ./scripts/env.sh
tools=target/tools
export PATH="$PWD/$tools/bin:$PATH"
if ! command -v cargo-deb >/dev/null 2>&1; then
    echo "package: installing cargo-deb into $tools"
    cargo install --quiet --locked --root "$tools" cargo-deb@3.8.0
fi
mkdir -p target/debian
if [ "${1:-}" = arm64 ]; then
    . ./scripts/aarch64-env.sh
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/aarch64}"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$(emulator max)"
    # the pages by the emulator: to build them for this machine as well would take as long again
    cargo run --quiet --release --target $aarch64 --example manual -- target/manual
    cargo deb --target $aarch64 --output target/debian/
else
    cargo run --quiet --release --example manual -- target/manual
    cargo deb --output target/debian/
fi
