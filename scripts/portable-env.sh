# Sourced in the repository's root, after env.sh, by what builds for other machines than this one: from now on cargo builds with
# `--target` in target/portable, for aarch64 and x86_64, what runs from glibc 2.31 on (Debian 11, Ubuntu 20.04, JetPack 5). Installs
# what is missing and says so. zig has the symbols of every glibc; a compiler of this machine would take this machine's.
zig_version=0.17.1 zigbuild_version=0.24.1 # cross/bin/zigcc-aarch64 and cross/Dockerfile name them too
. ./scripts/apt.sh
zig=$PWD/target/tools/zig
if [ "$("$zig/bin/python3" -m ziglang version 2>/dev/null)" != $zig_version ] ||
    [ "$("$zig/bin/cargo-zigbuild" --version 2>/dev/null)" != "cargo-zigbuild $zigbuild_version" ]; then
    echo "setup: installing zig $zig_version and cargo-zigbuild $zigbuild_version into target/tools/zig"
    rm -rf "$zig"
    mkdir -p target/tools
    python3 -m venv "$zig" >/dev/null 2>&1 || {
        apt_install python3-venv
        rm -rf "$zig"
        python3 -m venv "$zig"
    }
    "$zig/bin/pip" install --quiet --disable-pip-version-check ziglang==$zig_version cargo-zigbuild==$zigbuild_version
fi
# by name, not by path: the same target folder serves in another place
export PATH="$PWD/cross/bin:$PATH" EOMT_EDGE_ZIG="$zig"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/portable}"
export CC_aarch64_unknown_linux_gnu=zigcc-aarch64 CC_x86_64_unknown_linux_gnu=zigcc-x86_64
export AR_aarch64_unknown_linux_gnu=zigar AR_x86_64_unknown_linux_gnu=zigar
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=zigcc-aarch64 CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=zigcc-x86_64
