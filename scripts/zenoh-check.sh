#!/bin/sh
# eomt-edge-bridge zenoh against Zenoh's own Python package, configured as rmw_zenoh configures its sessions. In a network namespace that has only
# loopback.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh
PATH=$PATH:/usr/sbin # where Debian has ip
command -v ip >/dev/null 2>&1 || apt_install iproute2
python3 -c "import ensurepip" 2>/dev/null || apt_install python3-venv
venv=target/zenoh-check
if [ ! -e $venv/complete ]; then
    "${EOMT_EDGE_TEST_PYTHON:-/usr/bin/python3}" -m venv --clear $venv
    $venv/bin/pip install -q --disable-pip-version-check eclipse-zenoh==1.10.2 numpy==2.4.6 pillow==13.0.0
    touch $venv/complete
fi
exec unshare --map-root-user --net sh -c 'ip link set lo up && exec "$@"' sh $venv/bin/python scripts/zenoh_check.py
