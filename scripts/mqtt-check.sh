#!/bin/sh
# `eomt-edge-bridge mqtt` before a real mosquitto: passwords, TLS, last will, restarts of each part, a broker that stops reading, what Home Assistant
# documents; values against a daemon made by hand and against the Python client of a real one. Installs mosquitto (Debian's) where it is missing.
# EOMT_EDGE, EOMT_EDGE_BRIDGE: other programs than those of target/release.
set -eu
cd "$(dirname "$0")/.."
. scripts/env.sh
. scripts/apt.sh
PATH=$PATH:/usr/sbin # where Debian has mosquitto
command -v mosquitto >/dev/null 2>&1 && command -v mosquitto_sub >/dev/null 2>&1 || apt_install mosquitto mosquitto-clients
command -v openssl >/dev/null 2>&1 || apt_install openssl
[ -n "${EOMT_EDGE:-}" ] || cargo build --release $FEATURES
[ -n "${EOMT_EDGE_BRIDGE:-}" ] || cargo build --release -p eomt-edge-bridge
exec "$EOMT_EDGE_TEST_PYTHON" scripts/mqtt_check.py
