#!/bin/bash
# The two commands' set-up and a build in fresh Debian roots with nothing but git and make: as root, and as a user with sudo. By hand: each
# build compiles everything (ROOTS="trixie" USERS="root" try less). Prints what the first build took: time, disk, memory.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
work=$repo/target/bare-check
. ./scripts/apt.sh
if [ "$(id -u)" != 0 ]; then exec sudo --preserve-env=ROOTS,USERS bash "$0" "$@"; fi
command -v mmdebstrap >/dev/null 2>&1 || {
    echo "bare-check: installing mmdebstrap"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap
}
mkdir -p "$work"
bundle=/etc/ssl/certs/ca-certificates.crt

# The largest sum of resident memory, in MiB, of the processes whose root directory is $1; until the file $2 appears.
watch_memory() {
    local most=0 sum process rss
    while [ ! -e "$2" ]; do
        sum=0
        for process in /proc/[0-9]*; do
            [ "$(readlink "$process/root" 2>/dev/null)" = "$1" ] || continue
            rss=$(awk '/^RssAnon/ { print $2 }' "$process/status" 2>/dev/null || true)
            sum=$((sum + ${rss:-0}))
        done
        [ $sum -gt $most ] && most=$sum
        echo $((most / 1024)) > "$2.mib"
        sleep 1
    done
}

inside() { # inside ROOT USER COMMAND: with /proc and /dev/null, a clean environment
    unshare --mount --fork --pid chroot "$1" sh -c "mount -t proc proc /proc; exec su -l $2 -c '$3'"
}

try() { # try NAME SUITE PACKAGES USER
    local root=$work/root packages=git,make,sudo${3:+,$3} seconds
    rm -rf --one-file-system "$root"
    if [ ! -e "$work/$1.tar" ]; then
        mmdebstrap --quiet --variant=minbase --include="$packages" "$2" "$work/part.tar"
        mv "$work/part.tar" "$work/$1.tar"
    fi
    mkdir "$root"
    tar -C "$root" -xf "$work/$1.tar"
    cp /etc/resolv.conf "$root/etc/"
    if [ "$4" != root ]; then
        chroot "$root" useradd --create-home --shell /bin/bash "$4"
        echo "$4 ALL=(ALL) NOPASSWD: ALL" > "$root/etc/sudoers.d/$4"
    fi
    local home=/root
    [ "$4" = root ] || home=/home/$4
    git clone --quiet --depth 1 "file://$repo" "$root$home/eomt-edge"
    chroot "$root" chown -R "$4:" "$home"
    inside "$root" "$4" "cd eomt-edge && make setup"
    inside "$root" "$4" "cd eomt-edge && make setup" | grep . && { echo "bare-check: $1, $4: set-up found something to do twice"; return 1; }
    # what this machine trusts (it may sit behind a proxy of its own)
    cp "$bundle" "$root$bundle"
    rm -f "$work/built" "$work/built.mib"
    watch_memory "$root" "$work/built" &
    seconds=$SECONDS
    trap "touch '$work/built'" EXIT # ends the watch
    inside "$root" "$4" "cd eomt-edge && make build > build.log 2>&1 || { tail -n 20 build.log; exit 1; }"
    touch "$work/built"
    inside "$root" "$4" "cd eomt-edge && target/release/eomt-edge scenes --count 1 /tmp/scene && target/release/eomt-edge segment --model models/eomt-nano-scenes.onnx /tmp/scene/images/*.png -o /tmp/out"
    [ -e "$root/tmp/out/000000.overlay.png" ]
    local disk=$(du -sm "$root$home/eomt-edge/target" "$root$home/.cargo" | awk '{ sum += $1 } END { print sum }')
    echo "bare-check: $1 as $4: built in $((SECONDS - seconds)) s on $(nproc) cores; $disk MiB of disk, $(cat "$work/built.mib") MiB of memory"
}

failures=0
for root in ${ROOTS:-bookworm bookworm-llvm trixie}; do
    case $root in
        *-llvm) suite=${root%-llvm} packages=llvm-14-dev ;; # has libclang-cpp, but no libclang
        *) suite=$root packages="" ;;
    esac
    for user in ${USERS:-root builder}; do
        set +e # `try || ..` would make bash go on after a failing line
        (set -e; try "$root" "$suite" "$packages" "$user")
        result=$?
        set -e
        [ $result = 0 ] || { echo "bare-check: $root as $user FAILED"; failures=$((failures + 1)); }
    done
done
rm -rf --one-file-system "$work/root"
[ $failures = 0 ] && echo "bare-check: every root builds"
exit $failures
