# Sourced by the other scripts: finds cargo, and a Python that has numpy.
RUST_MIN=91 # Rust 1.91, as Cargo.toml says
rust_minor() { # rust_minor RUSTC: 95 of 1.95.0, 0 of what does not run
    "$1" --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p' | grep . || echo 0
}
# rustup puts cargo here; a shell that has not logged in again since does not know
[ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
# a rustup without a toolchain, or with an old one, gives way to the distribution's
if [ "$(rust_minor rustc)" -lt $RUST_MIN ] && [ "$(rust_minor /usr/bin/rustc)" -ge $RUST_MIN ]; then
    PATH="/usr/bin:$PATH"
fi
if [ -z "${EOMT_EDGE_TEST_PYTHON:-}" ]; then
    EOMT_EDGE_TEST_PYTHON=python3
    for python in python3 /usr/bin/python3; do
        if $python -c 'import numpy' 2>/dev/null; then
            EOMT_EDGE_TEST_PYTHON=$python
            break
        fi
    done
fi
export PATH EOMT_EDGE_TEST_PYTHON
# Desks train, boards do not. One choice for all scripts, so that a fresh machine compiles tract once: of the workspace, all but the bridge, whose
# dependencies would change the features of tract's. The bridge is compiled by itself.
FEATURES="--features train"
PROGRAM="--workspace --exclude eomt-edge-bridge $FEATURES"
BRIDGE="-p eomt-edge-bridge --features eomt-edge-bridge/zenoh"
