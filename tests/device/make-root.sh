#!/bin/bash
# An arm64 Debian with its own kernel and systemd, unpacked on this machine and packed as an initramfs: WORK/root.cpio, WORK/vmlinuz.
#
#     make-root.sh WORK [16k]    needs root, and the packages of setup.sh
#
# 16k: Debian 13 with its kernel of 16 KiB pages, which is what Raspberry Pi OS starts on a Raspberry Pi 5.
# No arm64 code runs here (a bootstrap under an emulator takes most of an hour), so nothing is configured: what maintainer scripts
# would have made is made below. Done once; again when this file changes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
suite=bookworm linux=linux-image-arm64
[ "${2:-}" != 16k ] || suite=trixie linux=linux-image-arm64-16k
stamp="$(sha256sum "$here/make-root.sh" | cut -c 1-64) $linux"
if [ "$(cat "$work/root.stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
rm -rf "$work/root" "$work/root.stamp" "$work/debs"
mkdir -p "$work/tmp" "$work/debs"
root=$work/root

packages=(
    # the machine
    $linux systemd-sysv udev kmod base-files base-passwd libc-bin mount login passwd util-linux hostname procps
    libpam-modules libpam-runtime bash dash coreutils findutils grep sed mawk tar gzip diffutils
    # what installs a package
    dpkg init-system-helpers perl-base debianutils
    # what the checks use
    v4l-utils python3-minimal python3-numpy
)
# Debian's mirror as this machine knows it, or mmdebstrap's own choice (Ubuntu has no $suite)
sources=$(grep -ls "$suite" /etc/apt/sources.list.d/debian*.sources /etc/apt/sources.list 2>/dev/null | head -n 1) || true
# names of the unpacked packages, for dpkg's database
export DEVICE_DEBS=$work/debs
TMPDIR=$work/tmp mmdebstrap --quiet --architectures=arm64 --variant=extract --mode=root --format=directory --skip=check/qemu \
    --include="$(IFS=,; echo "${packages[*]}")" --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/i18n/*' --dpkgopt='path-exclude=/usr/share/zoneinfo/*' --dpkgopt='path-exclude=/lib/udev/hwdb.d/*' \
    --dpkgopt='path-exclude=/usr/lib/aarch64-linux-gnu/gconv/*' --dpkgopt='path-exclude=/usr/lib/linux-image-*' \
    --dpkgopt='path-exclude=/usr/lib/python3/dist-packages/numpy/*/tests/*' \
    --setup-hook='mkdir -p "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" && for d in bin sbin lib; do ln -s "usr/$d" "$1/$d"; done' \
    --extract-hook='for deb in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb -f "$deb" > "$DEVICE_DEBS/$(basename "$deb").control"; done' \
    "$suite" "$root" ${sources:+"$sources"}

# The kernel, and of its modules only those that the machine or a check needs.
kernel=$(basename "$root"/lib/modules/*)
cp "$root/boot/vmlinuz-$kernel" "$work/vmlinuz"
depmod -b "$root" "$kernel"
modules=(vivid virtio_pci virtio_console virtio_rng virtio-gpu uvcvideo loop overlay ext4 evdev i2c-dev)
for module in "${modules[@]}"; do
    modprobe -d "$root" -S "$kernel" --show-depends "$module" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | sort -u > "$work/modules.keep"
find "$root/lib/modules/$kernel" -name '*.ko*' | sed "s|^$root||" | sort > "$work/modules.all"
sed "s|^$root||; s|^/usr/lib|/lib|" "$work/modules.keep" | sort | comm -13 - "$work/modules.all" | sed "s|^|$root|" | xargs -r rm -f
find "$root/lib/modules/$kernel" -type d -empty -delete
depmod -b "$root" "$kernel"
rm -rf "$root/boot" "$root/var/cache/apt" "$root/var/lib/apt/lists" "$root/tmp"/*

# dpkg's database: every unpacked package is installed.
database=$root/var/lib/dpkg
mkdir -p "$database/info" "$database/updates"
: > "$database/available"
for control in "$work"/debs/*.control; do
    sed -e '0,/^Version:/s/^Version:/Status: install ok installed\n&/' -e '/^Conffiles:/,/^[^ ]/{/^Conffiles:/d;/^ /d}' "$control"
    echo
    name=$(sed -n 's/^Package: //p' "$control")
    grep -q '^Multi-Arch: same' "$control" && name=$name:arm64
    : > "$database/info/$name.list"
done > "$database/status"
echo 1 > "$database/info/format" # names with an architecture
echo arm64 > "$database/arch"

# What maintainer scripts would have made.
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
sed -i 's|^root:[^:]*:|root::|' "$root/etc/passwd" # no password on the serial line
sed 's/^\([^:]*\):.*/\1:*:19000:0:99999:7:::/; s/^root:\*/root:/' "$root/etc/passwd" > "$root/etc/shadow"
sed 's/^\([^:]*\):.*/\1:*::/' "$root/etc/group" > "$root/etc/gshadow"
for kind in auth account password session session-noninteractive; do
    echo "${kind%%-*} required pam_permit.so" > "$root/etc/pam.d/common-$kind"
done
link() { [ -e "$root/$2" ] || ln -s "$1" "$root/$2"; }
link dash usr/bin/sh
link mawk usr/bin/awk
link "$(basename "$root"/usr/bin/python3.?*)" usr/bin/python3
for library in blas lapack; do # alternatives
    link "$library/lib$library.so.3" "usr/lib/aarch64-linux-gnu/lib$library.so.3"
done
link sbin/init init
mkdir -p "$root"/{proc,sys,dev,run,tmp,mnt,test}
chmod 1777 "$root/tmp"
echo camera > "$root/etc/hostname"
echo 0123456789abcdef0123456789abcdef > "$root/etc/machine-id"
: > "$root/etc/fstab"

# Units: nothing that waits for a network, a package mirror or a disk; /test/run.sh at the end of the boot.
units=$root/etc/systemd/system
mkdir -p "$units/multi-user.target.wants"
ln -sfn /lib/systemd/system/multi-user.target "$units/default.target"
for unit in systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
    systemd-networkd.service getty@tty1.service systemd-pstore.service systemd-firstboot.service systemd-hwdb-update.service \
    ldconfig.service systemd-journal-catalog-update.service systemd-update-done.service systemd-update-utmp.service \
    systemd-binfmt.service; do
    ln -sfn /dev/null "$units/$unit"
done
cp "$here/device-test.service" "$units/"
ln -sfn ../device-test.service "$units/multi-user.target.wants/device-test.service"

(cd "$root" && find . -print0 | cpio --null -o -H newc -R 0:0 --quiet) > "$work/root.cpio.new"
mv "$work/root.cpio.new" "$work/root.cpio"
echo "$stamp" > "$work/root.stamp"
du -h "$work/root.cpio" "$work/vmlinuz"
