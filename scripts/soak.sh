#!/bin/sh
# The daemon for a long time at full speed: memory, descriptors and threads must stay as they were once it was warm.
#
#     sh scripts/soak.sh [SECONDS]        (20 minutes by default; SOURCE=replay:DIR for other pictures)
#
# Readers come and go all the while, the configuration is read again every minute, and a reader that stands still is there
# from the beginning. Writes one line a second to soak-output/samples.tsv: seconds, frames, resident KiB, descriptors, threads.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-1200}
. ./scripts/env.sh

cargo build --release $FEATURES
program=target/release/eomt-edge
run=$(mktemp -d)
out=soak-output
rm -rf $out && mkdir -p $out
cleanup() {
    for process in ${daemon:-} ${sleeper:-}; do kill -CONT "$process" 2>/dev/null && kill "$process" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$run"
}
trap cleanup EXIT INT TERM

socket=$run/masks.sock
RUST_LOG=warn $program run --model models/eomt-nano-scenes.onnx --source "${SOURCE:-replay:tests/data/clip@0}" \
    --set ring.socket="$socket" --set ring.include_frame=true 2> $out/daemon.log &
daemon=$!
$program view --socket "$socket" --frames 1 --timeout 60 > /dev/null
$program view --socket "$socket" --json > /dev/null 2>&1 &
sleeper=$!
sleep 2
kill -STOP $sleeper

sample() { # seconds frames resident descriptors threads
    frames=$($program view --socket "$socket" --frames 1 --json | sed -n 's/.*"frame_sequence": *\([0-9]*\).*/\1/p' | head -n 1)
    awk -v s="$1" -v f="$frames" -v d="$(ls /proc/$daemon/fd | wc -l)" \
        '/^VmRSS/ { r = $2 } /^Threads/ { t = $2 } END { print s "\t" f "\t" r "\t" d "\t" t }' /proc/$daemon/status
}

# Reloads hold two networks at once and leave gaps in the allocator, which fill up: 3 MiB more over the first ten minutes of twenty, then 0.5.
warm=$((seconds / 2))
second=0
while [ $second -lt "$seconds" ]; do
    sleep 1
    second=$((second + 1))
    kill -0 $daemon 2>/dev/null || { echo "soak: the daemon has ended:"; cat $out/daemon.log; exit 1; }
    [ $((second % 60)) = 5 ] && kill -HUP $daemon
    sample $second >> $out/samples.tsv
done

# the second half: medians of its first and its last tenth, since a single sample may fall into a reload
awk -F'\t' -v warm=$warm '
    function median(a, n,   i, j, x) {
        for (i = 2; i <= n; i++) { x = a[i]; for (j = i - 1; j >= 1 && a[j] > x; j--) a[j + 1] = a[j]; a[j + 1] = x }
        return a[int((n + 1) / 2)]
    }
    $1 > warm { n++; r[n] = $3; d[n] = $4; t[n] = $5; last = $2 }
    END {
        k = int(n / 10); if (k < 5) k = 5
        for (i = 1; i <= k; i++) { r1[i] = r[i]; d1[i] = d[i]; t1[i] = t[i]; r2[i] = r[n - k + i]; d2[i] = d[n - k + i]; t2[i] = t[n - k + i] }
        a = median(r1, k); b = median(r2, k)
        printf "soak: %d frames; resident %d then %d KiB, descriptors %d then %d, threads %d then %d\n", last, a, b, median(d1, k), median(d2, k), median(t1, k), median(t2, k)
        # a reload frees and takes tens of MiB, which leaves gaps of some KiB; 2 MiB are less than 8 bytes a frame over 20 minutes
        exit !(b - a < 2048 && median(d1, k) == median(d2, k) && median(t1, k) == median(t2, k))
    }' $out/samples.tsv
