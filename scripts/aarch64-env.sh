# Sourced in the repository's root, after env.sh, by what builds for 64-bit ARM: portable-env.sh and a Rust compiler that has that
# machine's standard library, a C compiler and a libc for the tests. Installs what is missing and says so. `emulator CPU` prints what
# runs such programs here.
. ./scripts/portable-env.sh
aarch64=aarch64-unknown-linux-gnu
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
