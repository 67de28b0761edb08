#!/bin/bash
# `make image-raspi` ends with it: that everything a Raspberry Pi's boot loader reads is on the boot partition. No board, no emulator: it
# shows that files are there and name each other, not that they boot.   raspi-check.sh IMAGE.img
set -euo pipefail
image=$1@@1M failures=0
check() { # check NAME COMMAND...
    name=$1 result=PASS
    shift
    "$@" || result=FAIL failures=$((failures + 1))
    echo "$result $name"
}
there() { mdir -b -i "$image" "::/$1" > /dev/null 2>&1; }
config=$(mtype -i "$image" ::/config.txt)
cmdline=$(mtype -i "$image" ::/cmdline.txt)
kernel=$(sed -n 's/^kernel=//p' <<< "$config")
initrd=$(sed -n 's/^initramfs //p' <<< "$config")
check "config.txt: 64 bits" grep -q '^arm_64bit=1' <<< "$config"
check "kernel ${kernel:-(none)}" there "${kernel:-none}"
check "initrd ${initrd:-(none)}" there "${initrd:-none}"
magic=$(mtype -i "$image" "::/$kernel" 2>/dev/null | head -c 60 | tail -c 4 | tr -d '\0' || true)
check "the kernel is a plain arm64 Image, as the loader takes it" [ "$magic" = ARMd ]
for file in start4.elf fixup4.dat bcm2711-rpi-4-b.dtb bcm2712-rpi-5-b.dtb bcm2712-d-rpi-5-b.dtb eomt-edge-setup.txt; do
    check "$file" there "$file"
done
type=$(sfdisk -d "$1" | sed -n 's/.*img1 *:.*type=\([^, ]*\).*/\1/p')
check "the first partition is FAT32 with a table of the old kind (type ${type:-?})" [ "$type" = c ]
start=$(sfdisk -d "$1" | sed -n 's/.*img2 *:.*start= *\([0-9]*\),.*/\1/p')
root=$(blkid -p -O $((start * 512)) -s UUID -o value "$1")
check "cmdline.txt names the root file system, $root" grep -q "root=UUID=$root " <<< "$cmdline"
check "cmdline.txt sets no cma" bash -c '! grep -q cma= <<< "$1"' _ "$cmdline"
[ "$failures" = 0 ]
