#!/bin/sh
# A flashable disk image in target/image/: sh scripts/image.sh uefi|raspi. The package is the newest arm64 one in target/debian/, or $DEB.
set -eu
cd "$(dirname "$0")/.."
deb=${DEB:-$(ls -t target/debian/eomt-edge_*_arm64.deb 2>/dev/null | head -n 1)}
[ -n "$deb" ] || {
    echo "image: no arm64 package in target/debian/; 'make deb-arm64' makes it" >&2
    exit 1
}
bash packaging/image/setup.sh
. ./scripts/apt.sh
as_root bash packaging/image/build.sh "$1" "$deb" "target/image/eomt-edge-$1-arm64.img"
as_root sh scripts/checksums.sh target/image 'eomt-edge-*.img.xz'
