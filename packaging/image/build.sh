#!/bin/bash
# A flashable arm64 disk image: Debian 13 with eomt-edge. `make image` and `make image-raspi` call it.
#
#     build.sh uefi|raspi PACKAGE.deb OUT.img          needs root, and the packages of setup.sh
#
# debian.sh makes Debian itself, which takes long; its tar is kept beside the image for a day. customize.sh adds our package and settings.
# disk.sh fills the file systems without mounting them, so no loop device is needed. The image gets its name only when it is whole.
# Beside OUT.img: OUT.img.xz, which is what one flashes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
fail() { echo "image: $*" >&2; exit 1; }
[ $# = 3 ] || fail "usage: build.sh uefi|raspi PACKAGE.deb OUT.img"
kind=$1 deb=$(realpath -- "$2") out=$(realpath -m -- "$3")
case $kind in uefi | raspi) ;; *) fail "'$kind' is neither uefi nor raspi" ;; esac
[ "$(dpkg-deb -W --showformat='${Package} ${Architecture}' "$deb" 2>/dev/null)" = "eomt-edge arm64" ] ||
    fail "$deb is not the arm64 package of eomt-edge"
[ "$(id -u)" = 0 ] || fail "needs root (it installs a Debian into a directory)"
started=$SECONDS
step() { printf 'image: %4d s  %s\n' "$((SECONDS - started))" "$*"; }

mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(dirname "$out")/.image-$kind.XXXXXX")
chmod 755 "$work" # apt, within, is a user of its own
running=""
trap '[ -z "$running" ] || { kill "$running" && wait "$running"; } 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
run() { # a process that ends when this one is ended
    "$@" &
    running=$!
    wait "$running" || fail "this step failed (what it said is above)"
    running=""
}
export TMPDIR=$work

debian=$(dirname "$out")/debian-$kind.tar
if [ "$debian" -nt "$here/debian.sh" ] && [ -n "$(find "$debian" -mmin -1440)" ]; then
    step "Debian of $(date -r "$debian" '+%F %H:%M') (remove $debian for a newer one)"
else
    step "Debian for $kind: half an hour or so"
    run bash "$here/debian.sh" "$kind" "$debian"
fi
step "the package and the settings"
mkdir "$work/root"
tar -C "$work/root" --numeric-owner --xattrs --xattrs-include='*' -xf "$debian"
read -r IMAGE_ROOT_ID IMAGE_BOOT_ID IMAGE_BOOT <<< "$(awk '{ sub("UUID=", "", $1); id[NR] = $1; at = $2 } END { print id[1], id[2], at }' "$work/root/etc/fstab")"
export IMAGE_KIND=$kind IMAGE_BOOT IMAGE_ROOT_ID IMAGE_BOOT_ID
run unshare --mount --pid --fork --kill-child bash "$here/customize.sh" "$work/root" "$deb"
step "file systems"
run bash "$here/disk.sh" "$kind" "$work/root" "$work/disk.img"
[ "$kind" = uefi ] || run bash "$here/raspi-check.sh" "$work/disk.img"
step "compressing"
run xz -T0 -3 --keep "$work/disk.img"
mv "$work/disk.img.xz" "$out.xz"
mv "$work/disk.img" "$out"
step "done: $(du -h --apparent-size "$out" | cut -f 1) when flashed, $(du -h "$out.xz" | cut -f 1) compressed: $out.xz"
