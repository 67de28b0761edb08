#!/bin/sh
# The packages, program and bridge: Debian's policy (lintian), what is in them, and an installation, an upgrade, a removal and a purge in a fresh
# Debian: this machine's, or SUITE (bullseye is the oldest that will do).
set -eu
cd "$(dirname "$0")/.."
architecture=$(dpkg --print-architecture)
deb=$(ls target/debian/eomt-edge_*_"$architecture".deb)
bridge=$(ls target/debian/eomt-edge-bridge_*_"$architecture".deb)
bridge_most=12000 # KiB that it may take when installed
missing=""
for tool in lintian mmdebstrap; do command -v $tool >/dev/null 2>&1 || missing="$missing $tool"; done
if [ -n "$missing" ]; then
    echo "package-check: installing$missing"
    if [ "$(id -u)" = 0 ]; then sudo=""; else sudo=sudo; fi
    $sudo apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi

# nobody has filed a bug that a first upload could close
lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$deb" "$bridge" 2>&1 | grep -v "root privileges" || true
lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$deb" "$bridge" >/dev/null 2>&1

(cd target/debian && sha256sum --check --quiet SHA256SUMS)
. ./scripts/env.sh
for package in "$deb" "$bridge"; do
    document=./usr/share/eomt-edge/$(dpkg-deb -f "$package" Package).cdx.json
    dpkg-deb --fsys-tarfile "$package" | tar -xO "$document" | "$EOMT_EDGE_TEST_PYTHON" scripts/supply_test.py document -
done
size=$(dpkg-deb -f "$bridge" Installed-Size)
[ "$size" -le $bridge_most ] || { echo "package-check: the bridge takes $size KiB, more than $bridge_most" >&2; exit 1; }

for page in target/manual/man/* target/manual-bridge/man/*; do
    complaints=$(man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
    [ -z "$complaints" ] || { echo "package-check: $page: $complaints"; exit 1; }
done

suite=${SUITE:-$(. /etc/os-release; echo "${VERSION_CODENAME:-bookworm}")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# next FROM TO CONFIGURATION: a later version, whose default configuration has changed
next() {
    dpkg-deb -R "$1" "$work/next"
    sed -i 's/^Version: .*/Version: 9.9.9-1/' "$work/next/DEBIAN/control"
    echo '# a new default' >> "$work/next/etc/eomt-edge/$3"
    dpkg-deb --root-owner-group -b "$work/next" "$2" >/dev/null
    rm -r "$work/next"
}
cp "$deb" "$work/first.deb"
cp "$bridge" "$work/bridge.deb"
next "$deb" "$work/next.deb" eomt-edge.toml
next "$bridge" "$work/next-bridge.deb" eomt-edge-mqtt.toml
cp packaging/check-inside.sh "$work/"
mmdebstrap --quiet --variant=minbase --include=systemd \
    --customize-hook="copy-in $work/first.deb $work/next.deb $work/bridge.deb $work/next-bridge.deb $work/check-inside.sh /tmp" \
    --customize-hook='chroot "$1" sh /tmp/check-inside.sh' "$suite" /dev/null
for package in "$deb" "$bridge"; do
    size=$(stat -c %s "$package")
    echo "package-check: $(basename "$package"), in $suite: $((size / 1000000)) MB, installed $(dpkg-deb -f "$package" Installed-Size) KiB"
done
