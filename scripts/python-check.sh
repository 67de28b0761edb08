#!/bin/sh
# The Python client as others get it: its wheel, built without network, in a virtual environment of its own under target/; type checkers on
# a program that uses it; views, asyncio (on uvloop, too) and the helpers for supervision and Rerun against a real daemon; GStreamer's
# pipelines of docs/clients.md. Installs GStreamer where it is missing.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh
fail() { echo "python-check: $*" >&2; exit 1; }
dpkg-query -W gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good python3-venv >/dev/null 2>&1 ||
    apt_install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good python3-venv
EOMT_EDGE=$(realpath "${EOMT_EDGE:-target/release/eomt-edge}") || fail "no daemon: make build"
export EOMT_EDGE
place=$PWD/target/python-check
python=$place/venv/bin/python
mkdir -p "$place"
[ -x "$python" ] || python3 -m venv "$place/venv"
"$python" -m pip install --quiet --disable-pip-version-check setuptools==84.2.1 numpy==2.4.6 "pyright[nodejs]==1.1.414" mypy==2.4.1 \
    supervision==0.31.2 rerun-sdk==0.41.0 uvloop==0.23.0 typing_extensions pillow

# a copy, since setuptools leaves its own folders beside the sources
rm -rf "$place/source" "$place/wheel"
cp -rL clients/python "$place/source"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-index --no-build-isolation --no-deps --wheel-dir "$place/wheel" "$place/source"
wheel=$(ls "$place"/wheel/*.whl)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
[ "$(basename "$wheel")" = "eomt_edge_client-$version-py3-none-any.whl" ] || fail "the wheel is called $(basename "$wheel"), the workspace has version $version"
"$python" scripts/python_wheel_check.py "$wheel"
"$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall "$wheel"

mypy() { "$python" -m mypy --strict --cache-dir "$place/mypy" "$@"; }
pyright() { "$place/venv/bin/pyright" --pythonpath "$python" --warnings "$@"; }
(cd "$place/source" && mypy -p eomt_edge_client && pyright eomt_edge_client)
# outside of the repository, so that the installed package is what they see
EOMT_EDGE_REPOSITORY=$PWD
export EOMT_EDGE_REPOSITORY
rm -rf "$place/tests"
mv "$place/source/tests" "$place/tests"
cd "$place/tests"
mypy ./*.py
pyright .
"$python" -W error::ResourceWarning -m unittest
EOMT_EDGE_TEST_LOOP=uvloop "$python" -m unittest test_aio
echo "python-check: done"
