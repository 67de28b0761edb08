#!/bin/bash
# count.sh a72|a76 OUT PROGRAM ARGS...: runs an aarch64 program under the counter. OUT.txt gets a line of counts per `hint #112`,
# OUT.hot the blocks that executed most in the last section.
set -euo pipefail
: "${A64LAB:?set A64LAB to the folder of setup.sh}"
lab=$(cd "$A64LAB" && pwd)
cpu=$1 out=$2
shift 2
export ORT_DISABLE_TELEMETRY=1 LD_LIBRARY_PATH="$lab/qu/usr/lib/$(gcc -print-multiarch)"
exec "$lab/qu/usr/bin/qemu-aarch64" -cpu "cortex-$cpu" -L "$lab/sr-$cpu" -U LD_LIBRARY_PATH \
    -plugin "$lab/liba64count.so,out=$out.txt,hot=$out.hot,top=${TOP:-400}" "$@"
