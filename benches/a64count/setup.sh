#!/bin/bash
# The counting lab in the folder $A64LAB: a qemu-user that takes plugins, the counter, llvm-mca, ONNX Runtime for aarch64 and its
# runner. Everything is unpacked there, nothing is installed. Needs Debian 12 with deb packages of qemu-user 7.2 and llvm-19,
# gcc, gcc-aarch64-linux-gnu and pip.
set -euo pipefail
: "${A64LAB:?set A64LAB to a folder}"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$A64LAB"/deb "$A64LAB"/apt/lists/partial "$A64LAB"/apt/parts
cd "$A64LAB"
lab=$PWD

for tool in gcc aarch64-linux-gnu-gcc apt-get dpkg python3 pip; do
    command -v $tool >/dev/null 2>&1 || { echo "a64count: $tool is missing" >&2; exit 1; }
done

if [ ! -x qu/usr/bin/qemu-aarch64 ] || [ ! -x l19/usr/lib/llvm-19/bin/llvm-mca ]; then
    (cd deb && apt-get download qemu-user libcapstone4 llvm-19 libllvm19 >/dev/null)
    for package in qemu-user libcapstone4; do dpkg -x deb/${package}_*.deb qu; done
    for package in llvm-19 libllvm19; do dpkg -x deb/${package}_*.deb l19; done
fi

# The plugin header comes with qemu's source package only.
if [ ! -f qemu-plugin.h ]; then
    sed 's/^Types: deb.*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >apt/parts/src.sources
    options=(-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$lab/apt/parts" -o "Dir::State::Lists=$lab/apt/lists")
    apt-get "${options[@]}" update >/dev/null
    (cd deb && apt-get "${options[@]}" source --download-only qemu >/dev/null)
    tar -xf deb/qemu_*.orig.tar.* --wildcards --strip-components=3 '*/include/qemu/qemu-plugin.h'
fi

if ! ls ort/onnxruntime/capi/libonnxruntime.so.* >/dev/null 2>&1; then
    pip download -q --disable-pip-version-check --platform manylinux_2_28_aarch64 --python-version 311 --only-binary=:all: \
        --no-deps -d deb onnxruntime
    mkdir -p ort
    (cd ort && python3 -m zipfile -e ../deb/onnxruntime-*aarch64.whl .)
fi

gcc -O2 -Wall -Wextra -shared -fPIC -I"$lab" "$here/a64count.c" -o liba64count.so
aarch64-linux-gnu-gcc -O2 -Wall -Wextra "$here/ortrun.c" -ldl -o ortrun.a64

# Roots of the emulated system: ONNX Runtime reads the core from /proc/cpuinfo. a72 = Raspberry Pi 4, a76 = Raspberry Pi 5.
make_root() { # make_root NAME FEATURES VARIANT PART REVISION
    local root=sr-$1 cpu=sr-$1/sys/devices/system/cpu
    rm -rf "$root"
    mkdir -p "$root/proc" "$cpu/cpu0/topology"
    printf '%s\t: %s\n' processor 0 BogoMIPS 62.50 Features "$2" 'CPU implementer' 0x41 >"$root/proc/cpuinfo"
    printf 'CPU architecture: 8\nCPU variant\t: %s\nCPU part\t: %s\nCPU revision\t: %s\n\n' "$3" "$4" "$5" >>"$root/proc/cpuinfo"
    for file in possible present online kernel_max; do echo 0 >"$cpu/$file"; done
    # a system without an arm64 libc of its own has the cross compiler's
    [ -e /lib/aarch64-linux-gnu/libc.so.6 ] || ln -s /usr/aarch64-linux-gnu/lib "$root/lib"
}
make_root a72 "fp asimd evtstrm crc32 cpuid" 0x0 0xd08 3
make_root a76 "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp" 0x4 0xd0b 1
echo "a64count: ready in $lab"
