#!/bin/bash
# Makes of Debian the image's system; mmdebstrap calls it (see build.sh, which sets IMAGE_*), once before the kernel is installed,
# whose hooks read some of this, and once after everything is.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$2
text() { mkdir -p "$(dirname "$root/$1")"; cat > "$root/$1"; }

before() {
    mkdir -p "$root$IMAGE_BOOT"
    case $IMAGE_KIND in
        uefi)
            # kernel-install copies kernels to the boot partition and writes systemd-boot's entries, here and at each upgrade
            echo debian | text etc/kernel/entry-token
            echo "root=UUID=$IMAGE_ROOT_ID rw" | text etc/kernel/cmdline
            printf 'layout=bls\nBOOT_ROOT=%s\n' "$IMAGE_BOOT" | text etc/kernel/install.conf
            ;;
        raspi)
            # CMA=0: the device tree's own, a size for older boards on the command line keeps a Raspberry Pi 4 from booting
            printf 'ROOTPART="UUID=%s"\nCMA=0\nCONSOLES="ttyS1,115200 tty0"\n' "$IMAGE_ROOT_ID" | text etc/default/raspi-firmware
            ;;
    esac
}

after() {
    cp -R --no-dereference --preserve=mode,links "$here/files/." "$root/"
    sed -i "s|@BOOT@|$IMAGE_BOOT|g" "$root/etc/systemd/system/eomt-edge-setup.service"
    install -m 644 "$here/eomt-edge-setup.txt" "$root$IMAGE_BOOT/eomt-edge-setup.txt"
    sed -i 's/$/\r/' "$root$IMAGE_BOOT/eomt-edge-setup.txt" # for editors of all systems

    text etc/fstab <<END
UUID=$IMAGE_ROOT_ID / ext4 noatime,errors=remount-ro 0 1
UUID=${IMAGE_BOOT_ID:0:4}-${IMAGE_BOOT_ID:4} $IMAGE_BOOT vfat umask=0077,nofail 0 2
END
    echo eomt-edge | text etc/hostname
    printf '127.0.0.1\tlocalhost\n127.0.1.1\teomt-edge\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n' | text etc/hosts
    ln -sfn /usr/share/zoneinfo/Etc/UTC "$root/etc/localtime"

    cp "$IMAGE_DEB" "$root/tmp/eomt-edge.deb"
    chroot "$root" dpkg -i /tmp/eomt-edge.deb
    rm "$root/tmp/eomt-edge.deb"
    chroot "$root" systemctl enable eomt-edge-setup eomt-edge-grow eomt-edge-hostkeys systemd-networkd systemd-resolved systemd-timesyncd ssh
    chroot "$root" systemctl disable systemd-networkd-wait-online
    chroot "$root" passwd -l root
    if [ "$IMAGE_KIND" = uefi ]; then loader; fi

    # apt in the image: Debian's own addresses
    rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*
    suites="$IMAGE_SUITE $IMAGE_SUITE-updates"
    [ "$IMAGE_KIND" = uefi ] || suites="$suites $IMAGE_SUITE-backports"
    text etc/apt/sources.list.d/debian.sources <<END
Types: deb
URIs: http://deb.debian.org/debian
Suites: $suites
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: $IMAGE_SUITE-security
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
    # what each machine makes for itself
    rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed" "$root$IMAGE_BOOT/loader/random-seed"
    : > "$root/etc/machine-id"
    rm -f "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$root/etc/apt/apt.conf.d/99mmdebstrap"
    find "$root/var/log" -type f -delete
}

# systemd-boot at the place where firmware looks on removable disks, and an entry for each kernel
loader() {
    install -D -m 644 "$root/usr/lib/systemd/boot/efi/systemd-bootaa64.efi" "$root$IMAGE_BOOT/EFI/BOOT/BOOTAA64.EFI"
    install -D -m 644 "$root/usr/lib/systemd/boot/efi/systemd-bootaa64.efi" "$root$IMAGE_BOOT/EFI/systemd/systemd-bootaa64.efi"
    printf 'timeout 1\nconsole-mode keep\n' | text "$IMAGE_BOOT/loader/loader.conf"
    for kernel in "$root"/boot/vmlinuz-*; do
        version=${kernel##*/vmlinuz-}
        chroot "$root" kernel-install add "$version" "/boot/vmlinuz-$version" "/boot/initrd.img-$version"
    done
    [ -n "$(ls "$root$IMAGE_BOOT"/loader/entries/*.conf)" ]
}

"$1"
