#!/bin/sh
# Installs what building and testing need on Debian, Ubuntu or Raspberry Pi OS, and says what. Does nothing when all is there.
# Each question is the one that the build will ask: it compiles, links, imports and runs, whatever the packages are called.
set -eu
cd "$(dirname "$0")/.."
python_asked=${EOMT_EDGE_TEST_PYTHON:-}
. scripts/env.sh
probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT

builds_c() {
    printf '#include <stdio.h>\n#include <pthread.h>\nint main(void) { return puts("") == EOF; }\n' > "$probe/c.c"
    ${CC:-cc} -std=c11 -O2 -o "$probe/c" "$probe/c.c" -lpthread -lm && "$probe/c"
}
builds_cpp() {
    printf '#include <vector>\nint main() { return (int)std::vector<int>(3).size() - 3; }\n' > "$probe/cpp.cpp"
    ${CXX:-c++} -std=c++17 -O2 -o "$probe/cpp" "$probe/cpp.cpp" && "$probe/cpp"
}
builds_rust() { # takes a C compiler to link with
    printf 'fn main() {}\n' > "$probe/rust.rs"
    [ "$(rust_minor rustc)" -ge $RUST_MIN ] && cargo --version && rustc -o "$probe/rust" "$probe/rust.rs" && "$probe/rust"
}
missing() { # missing QUESTION..: whether it fails
    ! "$@" > /dev/null 2>&1
}

need=""
missing builds_c && need="$need gcc libc6-dev"
missing builds_cpp && need="$need g++"
missing make --version && need="$need make"
missing "$EOMT_EDGE_TEST_PYTHON" -c 'import numpy' && need="$need python3 python3-numpy"
[ -s "${SSL_CERT_FILE:-${CARGO_HTTP_CAINFO:-/etc/ssl/certs/ca-certificates.crt}}" ] || need="$need ca-certificates"
if [ -z "$need" ] && ! missing builds_rust; then exit 0; fi

. scripts/apt.sh
fail() {
    echo "setup: $*" >&2
    exit 1
}
command -v apt-get >/dev/null 2>&1 || fail "this machine has no apt-get; install by hand:$need Rust 1.$RUST_MIN or newer"
[ "$(id -u)" = 0 ] || command -v sudo >/dev/null 2>&1 || fail "neither root nor sudo; ask somebody to install:$need Rust 1.$RUST_MIN or newer"
install() {
    echo "setup: installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" > "$probe/apt.log" 2>&1 || {
        cat "$probe/apt.log" >&2
        fail "apt-get could not install $*"
    }
}
as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
[ -z "$need" ] || install $need

offers_rust() { # offers_rust PACKAGE: whether its version will do
    candidate=$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: 1\.\([0-9]*\)\..*/\1/p')
    [ "${candidate:-0}" -ge $RUST_MIN ]
}
if missing builds_rust; then
    if command -v rustup >/dev/null 2>&1 && echo "setup: installing Rust (stable, with your rustup)" \
        && rustup toolchain install stable --profile minimal --no-self-update && rustup default stable; then
        :
    elif offers_rust rustc-web; then # the newer one of Debian's two
        install rustc-web cargo-web
    elif offers_rust rustc; then
        install rustc cargo
    elif [ -n "$(apt-cache madison rustup)" ]; then
        install rustup
        rustup toolchain install stable --profile minimal && rustup default stable || true
    fi
fi
EOMT_EDGE_TEST_PYTHON=$python_asked
. scripts/env.sh

# the same questions once more: what a package is called proves nothing
missing builds_c && fail "'${CC:-cc}' still cannot build a C program"
missing builds_cpp && fail "'${CXX:-c++}' still cannot build a C++ program"
missing "$EOMT_EDGE_TEST_PYTHON" -c 'import numpy' && fail "'$EOMT_EDGE_TEST_PYTHON' still cannot import numpy"
missing builds_rust && fail "Rust 1.$RUST_MIN or newer is needed ($(rustc --version 2>/dev/null || echo 'none found')); install it with rustup: https://rustup.rs"
exit 0
