#!/bin/sh
# The package: Debian's policy (lintian), what is in it, and an installation, an upgrade, a removal and a purge in a fresh Debian:
# this machine's, or SUITE (bullseye is the oldest that will do).
set -eu
cd "$(dirname "$0")/.."
deb=$(ls target/debian/eomt-edge_*_"$(dpkg --print-architecture)".deb)
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
lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$deb" 2>&1 | grep -v "root privileges" || true
lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$deb" >/dev/null 2>&1

(cd target/debian && sha256sum --check --quiet SHA256SUMS)
. ./scripts/env.sh
dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/share/eomt-edge/eomt-edge.cdx.json | "$EOMT_EDGE_TEST_PYTHON" scripts/supply_test.py document -

for page in target/manual/man/*; do
    complaints=$(man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
    [ -z "$complaints" ] || { echo "package-check: $page: $complaints"; exit 1; }
done

suite=${SUITE:-$(. /etc/os-release; echo "${VERSION_CODENAME:-bookworm}")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$deb" "$work/first.deb"
# a later version, whose default configuration has changed
dpkg-deb -R "$deb" "$work/next"
sed -i 's/^Version: .*/Version: 9.9.9-1/' "$work/next/DEBIAN/control"
echo '# a new default' >> "$work/next/etc/eomt-edge/eomt-edge.toml"
dpkg-deb --root-owner-group -b "$work/next" "$work/next.deb" >/dev/null
cp packaging/check-inside.sh "$work/"
mmdebstrap --quiet --variant=minbase --include=systemd --customize-hook="copy-in $work/first.deb $work/next.deb $work/check-inside.sh /tmp" \
    --customize-hook='chroot "$1" sh /tmp/check-inside.sh' "$suite" /dev/null
size=$(stat -c %s "$deb")
echo "package-check: $(basename "$deb"), in $suite: $((size / 1000000)) MB, installed $(dpkg-deb -f "$deb" Installed-Size) KiB"
