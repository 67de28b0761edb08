#!/bin/bash
# Puts into PAYLOAD/test what `install_package` in guest/lib.sh installs: the packages for arm64, a later version of the program's whose default
# configuration has changed, and the clients as a user builds them.
#
#     stage.sh PAYLOAD [PROGRAM]         PROGRAM takes the place of the package's, for development
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
payload=$1 program=${2:-}
deb=$(ls "$repo"/target/debian/eomt-edge_*_arm64.deb)
mkdir -p "$payload/test/clients"
cp "$deb" "$payload/test/eomt-edge.deb"
# the bridge where it was packaged; `make device-test` has it packaged
bridge=$(ls "$repo"/target/debian/eomt-edge-bridge_*_arm64.deb 2>/dev/null || true)
[ -z "$bridge" ] || cp "$bridge" "$payload/test/eomt-edge-bridge.deb"
next=$(mktemp -d)
trap 'rm -rf "$next"' EXIT
dpkg-deb -R "$deb" "$next/package"
sed -i 's/^Version: .*/Version: 9.9.9-1/' "$next/package/DEBIAN/control"
echo '# a new default' >> "$next/package/etc/eomt-edge/eomt-edge.toml"
# the initramfs is memory, so the second copy is compressed as quickly as possible
dpkg-deb --root-owner-group -Zgzip -z1 -b "$next/package" "$payload/test/next.deb" > /dev/null
[ -z "$program" ] || install -m 755 "$program" "$payload/test/program"
install -m 644 -D -t "$payload/test/clients/eomt_edge_client" "$repo"/clients/python/eomt_edge_client/*.py
install -m 644 "$repo/scripts/soak.py" "$payload/test/clients/soak.py" # its cheat
aarch64-linux-gnu-gcc -O2 -o "$payload/test/clients/subscriber" -I "$repo/clients/c" "$repo/examples/c/subscriber.c" -lpthread
