#!/bin/bash
# A disk image from a directory, without mounting anything: disk.sh uefi|raspi ROOT OUT.img   (build.sh calls it and sets IMAGE_*)
#
# First a FAT partition of 512 MiB with what stands in the root's boot directory, then ext4 with all the rest and some room; the first
# boot enlarges it. GPT for UEFI; for the Raspberry Pi the old table, which all of its boot loaders read.
set -euo pipefail
kind=$1 root=$2 out=$3
boot_mib=512
scratch=$(mktemp -d "$(dirname "$out")/disk.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

truncate -s ${boot_mib}M "$scratch/boot"
mkfs.vfat -F 32 -n EOMT-BOOT -i "${IMAGE_BOOT_ID/-/}" "$scratch/boot" > /dev/null
mkdir "$scratch/files"
find "$root$IMAGE_BOOT" -mindepth 1 -maxdepth 1 -exec mv -t "$scratch/files" {} +
mcopy -i "$scratch/boot" -s -m "$scratch"/files/* ::/

used_mib=$(du -s -x -B 1M "$root" | cut -f 1)
root_mib=$((used_mib * 11 / 10 + 256))
truncate -s ${root_mib}M "$scratch/root"
mkfs.ext4 -q -F -L EOMT-ROOT -U "$IMAGE_ROOT_ID" -m 1 -d "$root" "$scratch/root"
e2fsck -f -n "$scratch/root" > "$scratch/fsck" 2>&1 || { cat "$scratch/fsck" >&2; exit 1; }

truncate -s $((1 + boot_mib + root_mib + 1))M "$out"
case $kind in
    uefi) label=gpt boot_type=U root_type=B921B045-1DF0-41C3-AF44-4C6F280D3FAE ;; # ESP; Linux root for arm64
    raspi) label=dos boot_type=c root_type=83 ;;
esac
sfdisk -q "$out" <<END
label: $label
start=1MiB, size=${boot_mib}MiB, type=$boot_type, bootable
start=$((1 + boot_mib))MiB, size=${root_mib}MiB, type=$root_type
END
dd if="$scratch/boot" of="$out" bs=1M seek=1 conv=sparse,notrunc status=none
dd if="$scratch/root" of="$out" bs=1M seek=$((1 + boot_mib)) conv=sparse,notrunc status=none
