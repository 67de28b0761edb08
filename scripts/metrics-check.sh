#!/bin/sh
# `eomt-edge-bridge metrics` before real scrapers: promtool's lint, a Prometheus that scrapes it and evaluates the dashboard, twenty scrapers at
# once, those that stall; numbers against a daemon made by hand and against the Python client of a real one. Installs Prometheus (Debian's) where it
# is missing. EOMT_EDGE, EOMT_EDGE_BRIDGE: other programs than those of target/release.
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh
. scripts/apt.sh
command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1 || apt_install prometheus
[ -n "${EOMT_EDGE:-}" ] || cargo build --release $FEATURES
[ -n "${EOMT_EDGE_BRIDGE:-}" ] || cargo build --release -p eomt-edge-bridge
prometheus --version 2>&1 | sed -n 1p
exec "$EOMT_EDGE_TEST_PYTHON" scripts/metrics_check.py
