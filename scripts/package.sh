#!/bin/sh
# The Debian packages, program and bridge, for this machine, or for arm64: sh scripts/package.sh [arm64] [program]. With `program`: that package
# alone, as the bridge's dependencies take as long again. Leaves them in target/debian/. They run from glibc 2.31 on, whatever this machine has;
# scripts/glibc-check.sh looks.
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
if [ "${1:-}" = arm64 ] || [ "$(uname -m)" = aarch64 ]; then
    . ./scripts/aarch64-env.sh
    target=$aarch64
    # the pages by the emulator: to build them for this machine as well would take as long again
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$(emulator max)"
else
    . ./scripts/portable-env.sh
    target=x86_64-unknown-linux-gnu
fi
# everything in one go, as aarch64-test.sh does
cargo build --release --target $target --bins --examples
cargo run --quiet --release --target $target --example manual -- target/manual
packages=eomt-edge
if [ "${2:-${1:-}}" != program ]; then
    packages="eomt-edge eomt-edge-bridge"
    # shellcheck disable=SC2086 # a list of options
    cargo build --release --target $target $BRIDGE --bins --examples
    # shellcheck disable=SC2086
    cargo run --quiet --release --target $target $BRIDGE --example bridge_manual -- target/manual-bridge
fi
# what it is made of; dated as the last change to the sources
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
"$EOMT_EDGE_TEST_PYTHON" scripts/sbom.py $target target/sbom/eomt-edge.cdx.json
[ "$packages" = eomt-edge ] || "$EOMT_EDGE_TEST_PYTHON" scripts/sbom.py $target target/sbom/eomt-edge-bridge.cdx.json eomt-edge-bridge "${BRIDGE##* }"
# with our dpkg-shlibdeps
for package in $packages; do
    PATH="$PWD/packaging/bin:$PATH" cargo deb -p $package --no-build --target $target --output target/debian/
done
sh scripts/checksums.sh target/debian '*.deb'
