#!/bin/bash
# Debian 13 for arm64 as a tar, all configured, with a kernel that boots: what an image has besides our package. build.sh calls it.
#
#     debian.sh uefi|raspi OUT.tar       needs root
#
# arm64 programs run under qemu-user here, which is what takes the time. mmdebstrap calls this script again, as
# `debian.sh settings ROOT`, before the kernel is installed, whose hooks read those settings.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
fail() { echo "image: $*" >&2; exit 1; }
suite=trixie

settings() {
    root=$1
    text() { mkdir -p "$(dirname "$root/$1")"; cat > "$root/$1"; }
    read -r root_id < /proc/sys/kernel/random/uuid
    boot_id=$(cut -c 1-4,10-13 --output-delimiter=- /proc/sys/kernel/random/uuid | tr a-f A-F)
    mkdir -p "$root$IMAGE_BOOT"
    text etc/fstab <<END
UUID=$root_id / ext4 noatime,errors=remount-ro 0 1
UUID=$boot_id $IMAGE_BOOT vfat umask=0077,nofail,x-systemd.device-timeout=5min 0 2
END
    case $IMAGE_KIND in
        uefi)
            # kernel-install copies kernels to the boot partition and writes systemd-boot's entries, here and at each upgrade
            echo debian | text etc/kernel/entry-token
            echo "root=UUID=$root_id rw" | text etc/kernel/cmdline
            printf 'layout=bls\nBOOT_ROOT=%s\n' "$IMAGE_BOOT" | text etc/kernel/install.conf
            ;;
        raspi)
            # CMA=0: the device tree's own; a size for older boards on the command line may keep a Raspberry Pi 4 from booting
            printf 'ROOTPART="UUID=%s"\nCMA=0\nCONSOLES="ttyS1,115200 tty0"\n' "$root_id" | text etc/default/raspi-firmware
            ;;
    esac
}
if [ "$1" = settings ]; then settings "$2"; exit; fi

kind=$1 out=$2
packages=(
    systemd-sysv systemd-resolved systemd-timesyncd udev kmod dbus libpam-systemd initramfs-tools zstd tzdata procps
    openssh-server openssh-sftp-server wpasupplicant wireless-regdb iw iproute2 iputils-ping
    sudo apt ca-certificates less nano cloud-guest-utils dosfstools e2fsprogs
    v4l-utils python3-minimal python3-numpy
)
# Debian's mirrors as this machine knows them, else the ones in apt's own examples; the image itself names the latter
mirror() { # mirror ARCHIVE
    cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /usr/share/doc/apt/examples/debian.sources /usr/share/doc/apt/examples/sources.list 2>/dev/null |
        sed 's/#.*//' | grep -oE "https?://[^ ]+/$1/?( |\$)" | head -n 1 | tr -d ' ' || true
}
archive=$(mirror debian)
security=$(mirror debian-security)
[ -n "$archive" ] && [ -n "$security" ] || fail "no mirror of Debian in /etc/apt, and none in apt's examples: name one in /etc/apt/sources.list"
components="main non-free-firmware"
sources=("deb $archive $suite $components" "deb $archive $suite-updates $components" "deb $security $suite-security $components")
export IMAGE_KIND=$kind IMAGE_BOOT
case $kind in
    uefi)
        IMAGE_BOOT=/boot/efi
        packages+=(linux-image-arm64 systemd-boot systemd-boot-efi)
        ;;
    raspi)
        # Linux 6.12's device tree of the Raspberry Pi 5 has neither USB nor Ethernet; the one in backports has
        IMAGE_BOOT=/boot/firmware
        sources+=("deb $archive $suite-backports $components")
        packages+=("linux-image-arm64/$suite-backports" raspi-firmware firmware-brcm80211)
        ;;
    *) fail "'$kind' is neither uefi nor raspi" ;;
esac

# arm64 programs on this machine
if ! arch-test arm64 >/dev/null 2>&1; then
    binfmt=/proc/sys/fs/binfmt_misc
    [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt 2>/dev/null || true
    cat /usr/lib/binfmt.d/qemu-aarch64.conf > $binfmt/register 2>/dev/null || true
    arch-test arm64 >/dev/null 2>&1 || fail "this machine does not run arm64 programs: binfmt_misc and qemu-user-static are needed"
fi

# In namespaces of its own: when it ends, however it does, so do all that it started and all that it mounted.
# The settings are there before the packages: dpkg must keep them without asking.
log=$out.log
unshare --mount --pid --fork --kill-child --mount-proc \
    mmdebstrap --mode=root --architectures=arm64 --variant=minbase --format=tar \
    --include="$(IFS=,; echo "${packages[*]}")" --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
    --dpkgopt=force-confold \
    --essential-hook="bash '$here/debian.sh' settings \"\$1\"" \
    "$suite" "$out.new" "${sources[@]}" > "$log" 2>&1 &
debian=$!
trap 'kill "$debian" 2>/dev/null; wait "$debian" 2>/dev/null; rm -f "$out.new"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
wait "$debian" || { tail -n 40 "$log" >&2; fail "Debian could not be installed (its last words are above)"; }
trap - EXIT
mv "$out.new" "$out"
rm "$log"
