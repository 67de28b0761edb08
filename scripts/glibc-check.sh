#!/bin/bash
# The packages run from glibc 2.31 on: scripts/glibc-check.sh [arm64] [amd64]. Reads what their programs need of glibc and what they say of it, lets
# Debian 11's own apt (glibc 2.31) install both of an architecture in a fresh root, and runs the programs there, arm64 under an emulator: `doctor`,
# `segment` and `run` with the shipped model, and the bridge's `metrics`. Needs root, and `make deb deb-arm64` before.
set -euo pipefail
cd "$(dirname "$0")/.."
. ./scripts/env.sh
. ./scripts/portable-env.sh
limit=2.31 suite=bullseye
model=/usr/share/eomt-edge/eomt-nano-scenes.onnx
expected="bar box floor ring sky star wall" # in tests/data/clip/000007.png
fail() {
    echo "glibc-check: $*" >&2
    exit 1
}
needs=()
want() { command -v "$1" >/dev/null 2>&1 || needs+=("$2"); }
want mmdebstrap mmdebstrap
want qemu-aarch64-static qemu-user-static
want objdump binutils
want dpkg-architecture dpkg-dev
want curl curl
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || needs+=(debian-archive-keyring)
[ ${#needs[@]} = 0 ] || apt_install "${needs[@]}"
at_most() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | tail -n 1)" = "$2" ]; }

# check_words DEB PROGRAM: the versions of the symbols, the libraries, and Depends
check_words() {
    local deb=$1 program=$2 versions newest libraries depends said
    # objdump reads both processors' files; a version that is no number (GLIBC_PRIVATE, GLIBC_ABI_DT_RELR) is newer than any
    versions=$(objdump --private-headers "$program" | sed -n '/^Version References/,$s/.* GLIBC_\([^ ]*\)$/\1/p' | sort -uV)
    [ -n "$versions" ] || fail "$deb: objdump finds no version of glibc in the program"
    newest=$(tail -n 1 <<<"$versions")
    [[ $newest =~ ^[0-9.]+$ ]] && at_most "$newest" $limit ||
        fail "$deb: the program needs GLIBC_$newest, newer than $limit: $(objdump -T "$program" | grep -F "GLIBC_$newest" | awk '{ print $NF }' | paste -sd' ')"
    libraries=$(objdump --private-headers "$program" | awk '$1 == "NEEDED" { print $2 }' | sort)
    ! grep -vE '^(libc|libm|libdl|libpthread|librt|ld-linux-.*)\.so\.' <<<"$libraries" || fail "$deb: the libraries above are not of glibc"
    depends=$(dpkg-deb -f "$deb" Depends)
    said=$(sed -n 's/.*libc6 (>= \([0-9.]*\)).*/\1/p' <<<"$depends")
    [ "$said" = "$newest" ] || fail "$deb: the program needs glibc $newest, Depends says '$depends'"
    for system in "Debian 11=2.31-13+deb11u11" "Ubuntu 20.04, JetPack 5=2.31-0ubuntu9" "Ubuntu 22.04, JetPack 6=2.35-0ubuntu3" "Debian 12=2.36-9" "Debian 13=2.41-12"; do
        dpkg --compare-versions "${system#*=}" ge "$said" || fail "$deb: ${system%=*} has libc6 ${system#*=}, Depends says '$depends'"
    done
    echo "ok $(basename "$deb"): needs glibc $newest ($(paste -sd' ' <<<"$libraries")), Depends: $depends"
}

# check_start DEB BRIDGE ARCHITECTURE: in a root of that suite, in which apt has found everything that Depends names
check_start() {
    local deb=$1 bridge=$2 arch=$3 triple root=$work/root-$3 sources emulator="" labels="" start=$SECONDS
    triple=$(dpkg-architecture -a "$arch" -q DEB_HOST_MULTIARCH)
    # Debian's mirror as this machine knows it, or mmdebstrap's own choice
    sources=$(grep -hoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list.d/debian*.sources /etc/apt/sources.list 2>/dev/null | grep -v snapshot | head -n 1) || true
    # unpacked, not configured: that takes no emulator; apt looks for the file within the root too
    as_root env TMPDIR="$work" mmdebstrap --quiet --variant=extract --architectures="$arch" --mode=root --format=directory --skip=check/qemu \
        --aptopt='APT::Install-Recommends "false"' --setup-hook="mkdir -p \"\$1/$work\" && cp \"$deb\" \"$bridge\" \"\$1/$work/\"" \
        --include="$deb" --include="$bridge" $suite "$root" ${sources:+"deb $sources $suite main"} ||
        fail "$deb: Debian 11's apt cannot install it (or its mirror is gone: then say in scripts/glibc-check.sh where $suite is now)"
    if [ "$arch" != "$(dpkg --print-architecture)" ]; then
        emulator="/qemu -cpu max"
        as_root install -m 755 "$(command -v "qemu-aarch64-static")" "$root/qemu"
    fi
    as_root mkdir -p "$root/check" "$root/proc" "$root/sys" "$root/dev"
    as_root chown "$(id -u)" "$root/check"
    cp tests/data/clip/000007.png "$root/check/picture.png"
    # in_root NAME COMMAND...: the mounts are gone with their name space; the program starts its children through the emulator, too
    in_root() {
        # shellcheck disable=SC2016,SC2086 # for the inner shell; a list of words
        as_root env EOMT_EDGE_TEST_RUNNER="$emulator" unshare --mount sh -euc 'for place in proc sys dev; do mount --rbind /$place "$1/$place"; done; exec chroot "$@"' \
            sh "$root" $emulator "${@:2}" >"$root/check/$1.txt" 2>&1
    }
    in_root libc "/lib/$triple/libc.so.6" && grep -q "release version $limit" "$root/check/libc.txt" || fail "$suite has another glibc: $(head -n 1 "$root/check/libc.txt")"
    in_root doctor /usr/bin/eomt-edge doctor || true # what this machine lacks is no matter here
    grep -q '^model .*eomt-nano-scenes' "$root/check/doctor.txt" && ! grep -q '^model .*PROBLEM' "$root/check/doctor.txt" || fail "$deb: doctor: $(cat "$root/check/doctor.txt")"
    in_root segment /usr/bin/eomt-edge segment --model $model /check/picture.png -o /check || fail "$deb: segment: $(cat "$root/check/segment.txt")"
    in_root run /usr/bin/eomt-edge run --model $model --source scenes --frames 3 --set source.size=160x120 --set ring.socket=/check/masks.sock &&
        grep -q '3 frames in .* 0 failed' "$root/check/run.txt" || fail "$deb: run: $(cat "$root/check/run.txt")"
    labels=$(grep -o '"label":"[a-z]*"' "$root/check/picture.json" | cut -d '"' -f 4 | sort | paste -sd' ')
    [ "$labels" = "$expected" ] || fail "$deb: segment finds '$labels', not '$expected'"
    check_bridge "$bridge"
    echo "ok $(basename "$deb"): with $suite's glibc $limit, $(sed -n 's/^kernels *//p' "$root/check/doctor.txt") kernels: doctor, run, segment ($labels); $((SECONDS - start)) s"
}

# check_bridge BRIDGE: in check_start's root
check_bridge() {
    local process
    in_root version /usr/bin/eomt-edge-bridge --version || fail "$1: $(cat "$root/check/version.txt")"
    in_root metrics /usr/bin/eomt-edge-bridge metrics --socket /check/none --listen 127.0.0.1:9469 &
    process=$!
    # until it listens; a program that ends instead has said why
    for _ in $(seq 240); do
        ! curl --silent --output "$work/metrics.txt" http://127.0.0.1:9469/metrics || break
        kill -0 $process 2>/dev/null || fail "$1: metrics: $(cat "$root/check/metrics.txt")"
        sleep 0.5
    done
    as_root kill "$(pgrep --parent $process)"
    wait $process || fail "$1: metrics: $(cat "$root/check/metrics.txt")"
    grep -qx 'eomt_up 0' "$work/metrics.txt" || fail "$1: metrics without a daemon: $(cat "$work/metrics.txt")"
    echo "ok $(basename "$1"): with $suite's glibc $limit, $(cat "$root/check/version.txt"): metrics"
}

work=$(mktemp -d)
chmod 755 "$work" # apt reads it as its own user
trap 'as_root rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- arm64 amd64
for arch; do
    debs=()
    for package in eomt-edge eomt-edge-bridge; do
        found=$(ls -t target/debian/${package}_*_$arch.deb 2>/dev/null | head -n 1)
        [ -n "$found" ] || fail "no $arch package of $package in target/debian/; 'make deb deb-arm64' makes them"
        deb=$work/$(basename "$found")
        cp "$found" "$deb"
        dpkg-deb -x "$deb" "$work/$arch"
        check_words "$deb" "$work/$arch/usr/bin/$package"
        debs+=("$deb")
    done
    check_start "${debs[@]}" $arch
done
