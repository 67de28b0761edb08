#!/bin/bash
# A flashable arm64 disk image: Debian 13 with eomt-edge. `make image` and `make image-raspi` call it.
#
#     build.sh uefi|raspi PACKAGE.deb OUT.img          needs root, and the packages of setup.sh
#
# mmdebstrap installs and configures a whole Debian, arm64 programs running under qemu-user; customize.sh (in its last step) adds
# our package and settings. The file systems are then filled without being mounted, so no loop device is needed, and the image gets its
# name only when it is whole. Beside OUT.img: OUT.img.xz, which is what one flashes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
fail() { echo "image: $*" >&2; exit 1; }
[ $# = 3 ] || fail "usage: build.sh uefi|raspi PACKAGE.deb OUT.img"
kind=$1 deb=$(realpath -- "$2") out=$(realpath -m -- "$3")
case $kind in uefi | raspi) ;; *) fail "'$kind' is neither uefi nor raspi" ;; esac
[ "$(dpkg-deb -f "$deb" Package Architecture 2>/dev/null | tr '\n' ' ')" = "Package: eomt-edge Architecture: arm64 " ] ||
    fail "$deb is not the arm64 package of eomt-edge"
[ "$(id -u)" = 0 ] || fail "needs root (it installs a Debian into a directory)"
started=$SECONDS
step() { printf 'image: %4d s  %s\n' "$((SECONDS - started))" "$*"; }

# arm64 programs on this machine
if ! arch-test arm64 >/dev/null 2>&1; then
    binfmt=/proc/sys/fs/binfmt_misc
    [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt 2>/dev/null || true
    cat /usr/lib/binfmt.d/qemu-aarch64.conf > $binfmt/register 2>/dev/null || true
    arch-test arm64 >/dev/null 2>&1 || fail "this machine does not run arm64 programs: binfmt_misc and qemu-user-static are needed"
fi

mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(dirname "$out")/.image-$kind.XXXXXX")
debian="" # the process that installs Debian: when it ends, so do all that it started and all that it mounted
trap '[ -z "$debian" ] || { kill "$debian" && wait "$debian"; } 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root=$work/root
export TMPDIR=$work

suite=trixie
packages=(
    systemd-sysv systemd-resolved systemd-timesyncd udev kmod dbus libpam-systemd initramfs-tools zstd tzdata procps
    openssh-server openssh-sftp-server wpasupplicant wireless-regdb iw iproute2 iputils-ping
    sudo apt ca-certificates less nano cloud-guest-utils dosfstools e2fsprogs
    v4l-utils python3-minimal python3-numpy
)
# Debian's mirrors as this machine knows them; the image itself names deb.debian.org
mirror() { # mirror ARCHIVE
    cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | sed 's/#.*//' | grep -oE "https?://[^ ]+/$1/?( |\$)" | head -n 1 | tr -d ' ' || true
}
archive=$(mirror debian)
security=$(mirror debian-security)
: "${archive:=http://deb.debian.org/debian}" "${security:=http://deb.debian.org/debian-security}"
components="main non-free-firmware"
sources=("deb $archive $suite $components" "deb $archive $suite-updates $components" "deb $security $suite-security $components")
case $kind in
    uefi)
        boot=/boot/efi
        packages+=(linux-image-arm64 systemd-boot systemd-boot-efi)
        ;;
    raspi)
        # Linux 6.12 has no driver for the Raspberry Pi 5's USB and Ethernet; the one in backports has
        boot=/boot/firmware
        sources+=("deb $archive $suite-backports $components")
        packages+=("linux-image-arm64/$suite-backports" raspi-firmware firmware-brcm80211)
        ;;
esac
export IMAGE_KIND=$kind IMAGE_BOOT=$boot IMAGE_DEB=$deb IMAGE_SUITE=$suite IMAGE_ROOT_ID IMAGE_BOOT_ID
read -r IMAGE_ROOT_ID < /proc/sys/kernel/random/uuid
IMAGE_BOOT_ID=$(cut -c 1-8 /proc/sys/kernel/random/uuid | tr a-f A-F)

step "Debian $suite for $kind"
unshare --mount --pid --fork --kill-child --mount-proc \
    mmdebstrap --mode=root --architectures=arm64 --variant=minbase --format=directory \
    --include="$(IFS=,; echo "${packages[*]}")" --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
    --essential-hook="bash '$here/customize.sh' before \"\$1\"" --customize-hook="bash '$here/customize.sh' after \"\$1\"" \
    "$suite" "$root" "${sources[@]}" > "$work/log" 2>&1 &
debian=$!
wait "$debian" || { tail -n 40 "$work/log" >&2; fail "Debian could not be installed (its last words are above)"; }
debian=""

step "file systems"
bash "$here/disk.sh" "$kind" "$root" "$work/disk.img"
step "compressing"
xz -T0 -3 --keep "$work/disk.img"
mv "$work/disk.img.xz" "$out.xz"
mv "$work/disk.img" "$out"
step "done: $(du -h --apparent-size "$out" | cut -f 1) when flashed, $(du -h "$out.xz" | cut -f 1) compressed: $out.xz"
