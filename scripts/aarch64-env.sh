# Sourced after env.sh by what builds for 64-bit ARM: a compiler that has that machine's standard library, and a linker. Installs
# what is missing and says so. `emulator CPU` prints what runs such programs here.
aarch64=aarch64-unknown-linux-gnu
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
apt_install() {
    command -v apt-get >/dev/null 2>&1 || {
        echo "aarch64: this machine has no apt-get; install by hand: $*" >&2
        exit 1
    }
    echo "aarch64: installing $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}
has_aarch64() { # has_aarch64 RUSTC
    [ -d "$("$1" --print target-libdir --target $aarch64 2>/dev/null || echo /nowhere)" ]
}
if [ "$(uname -m)" != aarch64 ] && ! { command -v aarch64-linux-gnu-gcc && command -v aarch64-linux-gnu-g++; } >/dev/null 2>&1; then
    apt_install gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross
fi
if ! has_aarch64 "${RUSTC:-rustc}"; then
    if command -v rustup >/dev/null 2>&1 && rustup target add $aarch64 >/dev/null 2>&1; then
        echo "aarch64: rustup has added $aarch64"
    else
        # Debian's compiler has it, in whichever of its two versions is there; rust-web is the newer one
        if ! has_aarch64 /usr/bin/rustc; then
            as_root dpkg --add-architecture arm64
            apt_install rustc-web libstd-rust-web-dev:arm64
        fi
        export RUSTC=/usr/bin/rustc
    fi
fi
emulator() {
    if [ "$(uname -m)" = aarch64 ]; then echo env; return; fi # which runs it as it is
    # Where the system has an arm64 libc of its own, the emulator finds it without -L, and the cross compiler's would get in its way:
    # a mix of two versions hangs when the first thread starts.
    [ -e /lib/aarch64-linux-gnu/libc.so.6 ] && echo "qemu-aarch64-static -cpu $1" || echo "qemu-aarch64-static -cpu $1 -L /usr/aarch64-linux-gnu"
}
[ "$(uname -m)" = aarch64 ] || command -v qemu-aarch64-static >/dev/null 2>&1 || apt_install qemu-user-static
