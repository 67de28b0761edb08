#!/bin/bash
# Installs what `make device-test` needs on Debian or Ubuntu, and says what. Does nothing when all is there.
set -eu

need=""
want() { # want COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || need="$need $2"
}
want qemu-system-aarch64 qemu-system-arm
want mmdebstrap mmdebstrap
want cpio cpio
want depmod kmod
want curl curl
want python3 python3
want aarch64-linux-gnu-gcc "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
dpkg-query -W -f '${Status}' arch-test 2>/dev/null | grep -q 'ok installed' || need="$need arch-test"
[ -z "$need" ] && exit 0

. "$(dirname "$0")/../../scripts/apt.sh"
install() {
    # shellcheck disable=SC2086 # a list of packages
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove "$@" $need
}
command -v apt-get >/dev/null 2>&1 || {
    echo "device-test: this machine has no apt-get; install by hand:$need" >&2
    exit 1
}
echo "device-test: installing$need"
as_root apt-get update -qq
install 2>/dev/null && exit 0

# A newer qemu-utils from backports would have to go for the stable qemu-system-arm: take that one from backports too.
. /etc/os-release
backports=$(mktemp -d)
trap 'rm -rf "$backports"' EXIT
chmod 755 "$backports" # apt reads it as its own user
cp -a /etc/apt/sources.list.d/. "$backports/"
mirror=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1)
cat > "$backports/backports.sources" <<END
Types: deb
URIs: $mirror
Suites: $VERSION_CODENAME-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
need="${need/qemu-system-arm/qemu-system-arm/$VERSION_CODENAME-backports qemu-system-common/$VERSION_CODENAME-backports qemu-system-data/$VERSION_CODENAME-backports}"
as_root apt-get update -qq -o Dir::Etc::sourceparts="$backports"
install -o Dir::Etc::sourceparts="$backports"
