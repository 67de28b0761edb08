#!/bin/bash
# Installs what `make image` needs on Debian or Ubuntu, and says what. Does nothing when all is there.
set -eu

need=""
want() { # want COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || need="$need $2"
}
want mmdebstrap mmdebstrap
want arch-test arch-test
want mcopy mtools
want mkfs.vfat dosfstools
want mkfs.ext4 e2fsprogs
want sfdisk fdisk
want xz xz-utils
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || need="$need debian-archive-keyring"
[ "$(uname -m)" = aarch64 ] || want qemu-aarch64-static qemu-user-static
if [ "${1:-}" = check ]; then # what `make image-check` needs besides
    want ssh openssh-client
    bash "$(dirname "$0")/../../tests/device/setup.sh" # QEMU
    [ -e /usr/share/AAVMF/AAVMF_CODE.fd ] || need="$need qemu-efi-aarch64"
fi
if [ -n "$need" ]; then
    command -v apt-get >/dev/null 2>&1 || {
        echo "image: this machine has no apt-get; install by hand:$need" >&2
        exit 1
    }
    echo "image: installing$need"
    as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
    as_root apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove $need
fi
