#!/bin/bash
# Makes of Debian the image's system: our package, the units of the first boot, what each machine makes for itself taken out.
# build.sh calls it, in mount and process namespaces of its own, and sets IMAGE_*:   customize.sh ROOT PACKAGE.deb
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$1 deb=$2
text() { mkdir -p "$(dirname "$root/$1")"; cat > "$root/$1"; }
inside() { chroot "$root" env LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@" 2>&1 | sed 's/^/    /'; }
mount -t proc proc "$root/proc"

cp -R --no-dereference --preserve=mode,links "$here/files/." "$root/"
sed -i "s|@BOOT@|$IMAGE_BOOT|g" "$root/etc/systemd/system/eomt-edge-setup.service"
sed 's/$/\r/' "$here/eomt-edge-setup.txt" | text "$IMAGE_BOOT/eomt-edge-setup.txt" # for editors of all systems
echo eomt-edge | text etc/hostname
printf '127.0.0.1\tlocalhost\n127.0.1.1\teomt-edge\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n' | text etc/hosts
ln -sfn /usr/share/zoneinfo/Etc/UTC "$root/etc/localtime"

cp "$deb" "$root/tmp/eomt-edge.deb"
inside dpkg -i /tmp/eomt-edge.deb
rm "$root/tmp/eomt-edge.deb"
inside systemctl enable eomt-edge-setup eomt-edge-grow eomt-edge-hostkeys systemd-networkd systemd-resolved systemd-timesyncd ssh
inside systemctl disable systemd-networkd-wait-online
inside passwd -l root
# I2C displays are reached through /dev/i2c-*, which no device asks for by itself
echo i2c-dev | text etc/modules-load.d/eomt-edge-display.conf

# systemd-boot at the place where firmware looks on removable disks, and an entry for each kernel
if [ "$IMAGE_KIND" = uefi ]; then
    for place in BOOT/BOOTAA64.EFI systemd/systemd-bootaa64.efi; do
        install -D -m 644 "$root/usr/lib/systemd/boot/efi/systemd-bootaa64.efi" "$root$IMAGE_BOOT/EFI/$place"
    done
    printf 'timeout 1\nconsole-mode keep\n' | text "$IMAGE_BOOT/loader/loader.conf"
    plugins=/usr/lib/kernel/install.d
    for kernel in "$root"/boot/vmlinuz-*; do
        version=${kernel##*/vmlinuz-}
        # without depmod, which the kernel's package has run
        inside KERNEL_INSTALL_PLUGINS="$plugins/55-initrd.install $plugins/90-loaderentry.install" kernel-install add "$version" "/boot/vmlinuz-$version" "/boot/initrd.img-$version"
    done
    # not being mounted, the boot partition is taken for a part of the root
    sed -E -i "s#^((linux|initrd) *)$IMAGE_BOOT/#\1/#" "$root$IMAGE_BOOT"/loader/entries/*.conf
    grep -q '^linux */debian/' "$root$IMAGE_BOOT"/loader/entries/*.conf
fi

# apt in the image: Debian's own addresses, as apt's examples give them
default_mirror() { # default_mirror ARCHIVE
    local examples=usr/share/doc/apt/examples
    cat "$root/$examples/debian.sources" "$root/$examples/sources.list" "/$examples/debian.sources" "/$examples/sources.list" 2>/dev/null |
        sed 's/#.*//' | grep -oE "https?://[^ ]+/$1/?( |\$)" | head -n 1 | tr -d ' ' | grep .
}
archive=$(default_mirror debian)
security=$(default_mirror debian-security)
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*
. "$root/etc/os-release"
suites="$VERSION_CODENAME $VERSION_CODENAME-updates"
[ "$IMAGE_KIND" = uefi ] || suites="$suites $VERSION_CODENAME-backports"
text etc/apt/sources.list.d/debian.sources <<END
Types: deb
URIs: $archive
Suites: $suites
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: $security
Suites: $VERSION_CODENAME-security
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END

# what each machine makes for itself
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed" "$root$IMAGE_BOOT/loader/random-seed"
: > "$root/etc/machine-id"
rm -f "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root"/etc/resolv.conf.*
find "$root/var/log" -type f -delete
umount "$root/proc"
# what would be made anew for a newer /usr is up to date: not again at the first boot
touch -r "$root/usr" "$root/etc/.updated" "$root/var/.updated"
