#!/bin/sh
# Installs what building and testing need on Debian, Ubuntu or Raspberry Pi OS, and says what. Does nothing when all is there.
set -eu

RUST_MIN=91 # Rust 1.91, as Cargo.toml says

need=""
want() { # want COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || need="$need $2"
}

want cc gcc
want c++ g++
want make make
want python3 python3
[ -e /usr/include/stdio.h ] || need="$need libc6-dev"

. "$(dirname "$0")/env.sh"
$EOMT_EDGE_TEST_PYTHON -c 'import numpy' 2>/dev/null || need="$need python3-numpy"

rust_minor() {
    rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p'
}
minor=$(rust_minor)
rust_missing=no
if ! command -v cargo >/dev/null 2>&1 || [ "${minor:-0}" -lt "$RUST_MIN" ]; then
    rust_missing=yes
fi

[ -z "$need" ] && [ "$rust_missing" = no ] && exit 0

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: this machine has no apt-get; install by hand:$need Rust 1.$RUST_MIN or newer" >&2
    exit 1
fi
as_root apt-get update -qq
if [ -n "$need" ]; then
    echo "setup: installing$need"
    # shellcheck disable=SC2086 # a list of packages
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $need
fi
available() { # a name may be known without a package behind it
    apt-cache policy "$1" 2>/dev/null | grep -q '^  Candidate: [0-9]'
}
if [ "$rust_missing" = yes ]; then
    if available rustup; then
        echo "setup: installing Rust (stable, with Debian's rustup)"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustup
        rustup default stable
    elif available cargo-web; then
        echo "setup: installing Rust (Debian's rustc-web and cargo-web)"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustc-web cargo-web
    fi
    minor=$(rust_minor)
    if [ "${minor:-0}" -lt "$RUST_MIN" ]; then
        echo "setup: Rust 1.$RUST_MIN or newer is needed (found: ${minor:+1.}${minor:-none}); install it with rustup" >&2
        exit 1
    fi
fi
