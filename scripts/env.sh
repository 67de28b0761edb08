# Sourced by the other scripts: finds cargo, and a Python that has numpy.
# rustup puts cargo here; a shell that has not logged in again since does not know
[ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
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
# Desks train, boards do not. One choice for all scripts, so that a fresh machine compiles tract once.
FEATURES="--features train"
