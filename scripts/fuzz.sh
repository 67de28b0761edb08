#!/usr/bin/env bash
# Fuzzes every target for so many seconds, two at a time, and prints what came of it; fails when something was found.
#   fuzz.sh SECONDS [TARGET...]
# Stable Rust, no cargo-fuzz: libFuzzer is compiled once from the crate libfuzzer-sys, and only the workspace's own crates are compiled with
# counters (scripts/fuzz-rustc.sh); everything else is what `make test` compiled. JOBS: how many at a time.
# What is left behind: fuzz-output/TARGET/ with log, findings and the grown corpus, on which the next run goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
. ./scripts/env.sh
seconds=${1:?usage: fuzz.sh SECONDS [TARGET...]}
shift
all=(model torch_zip pickle safetensors json ring_client ring_server jpeg png bag ros_image recover stream config control mqtt setup)
targets=("$@")
[ $# -gt 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
    [[ " ${all[*]} " == *" $target "* ]] || { echo "fuzz: there is no target $target; there are ${all[*]}" >&2; exit 2; }
done

build() {
    # shellcheck disable=SC2086,SC2046 # lists of options
    RUSTFLAGS="--cfg fuzzing" cargo build --quiet --release -p libfuzzer-sys --target-dir target/fuzz-engine
    local found=(target/fuzz-engine/release/build/libfuzzer-sys-*/out/libfuzzer.a)
    # shellcheck disable=SC2012 # names of ours
    EOMT_EDGE_LIBFUZZER=$PWD/$(ls -t "${found[@]}" | head -n 1)
    export EOMT_EDGE_LIBFUZZER
    # shellcheck disable=SC2046 # a list of options
    RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/fuzz-rustc.sh cargo build --release -p eomt-edge -p eomt-edge-fuzz --features eomt-edge/train \
        $(printf -- '--bin %s ' "${all[@]/setup}" | sed 's/--bin  *$//')
}

# An interpreter with atheris (libFuzzer for Python) where PyPI has it for this Python; else the harness has a generator of its own.
python() {
    local folder=target/fuzz-python
    if [ ! -x $folder/bin/python ]; then
        { python3 -m venv $folder && $folder/bin/pip install --quiet --only-binary :all: atheris==3.0.0; } > fuzz-output/atheris.log 2>&1 || true
    fi
    if [ -x $folder/bin/python ]; then echo $folder/bin/python; else echo python3; fi
}

# Inputs are no longer than what exercises the code; slow ones, and what takes memory, are findings.
length() { case $1 in model | pickle | torch_zip | safetensors) echo 65536 ;; config | control | json | setup) echo 16384 ;; ring_*) echo 512 ;; bag | recover) echo 16384 ;; *) echo 32768 ;; esac; }

fuzz() { # fuzz TARGET
    local target=$1 out=fuzz-output/$1 options program status=0
    mkdir -p "$out/corpus"
    rm -f "$out"/finding-* "$out/log"
    options=(-max_total_time="$seconds" -max_len="$(length "$target")" -timeout=25 -rss_limit_mb=2048 -artifact_prefix="$out/finding-"
        -print_final_stats=1 -use_value_profile=1)
    [ ! -f "fuzz/dictionaries/$target.dict" ] || options+=(-dict="fuzz/dictionaries/$target.dict")
    if [ "$target" = setup ]; then
        program=("$(python)" fuzz/setup_file.py)
    else
        program=(target/release/"$target")
    fi
    ulimit -s 2048 -c 0 # as much stack as a thread of the daemon has
    TMPDIR=$scratch "${program[@]}" "${options[@]}" "$out/corpus" "fuzz/corpus/$target" > "$out/log" 2>&1 || status=$?
    echo $status > "$out/status"
}

# execs, execs a second, edges, inputs kept, what was contained, and the verdict
row() { # row TARGET
    local log=fuzz-output/$1/log status execs rate edges kept contained verdict=none
    status=$(cat "fuzz-output/$1/status" 2>/dev/null || echo "not run")
    value() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
    execs=$(value number_of_executed_units)
    rate=$(value average_exec_per_sec)
    edges=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2)
    kept=$(grep -o 'corp: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2)
    contained=$(sed -n 's/^contained: \([0-9]*\) x.*/\1/p' "$log" | awk '{ sum += $1 } END { print sum + 0 }')
    [ "$status" = 0 ] || verdict="FINDING: $(grep -m 1 -E '^FINDING|^[A-Za-z.]*Error: |SUMMARY|ERROR' "$log" | cut -c 1-110) (fuzz-output/$1/, exit code $status)"
    printf '%-12s %9s %8s %7s %7s %9s  %s\n' "$1" "${execs:--}" "${rate:--}" "${edges:--}" "${kept:--}" "$contained" "$verdict"
    [ "$status" = 0 ]
}

build
scratch=$(mktemp -d "$([ -d /dev/shm ] && echo /dev/shm || echo /tmp)/eomt-edge-fuzz.XXXXXX")
trap 'rm -rf "$scratch"; kill $(jobs -p) 2>/dev/null || true' EXIT
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do wait -n || true; done
    rm -f "fuzz-output/$target/status"
    fuzz "$target" &
done
wait

printf '%-12s %9s %8s %7s %7s %9s  %s\n' target execs execs/s edges inputs contained findings
found=0
for target in "${targets[@]}"; do row "$target" || found=1; done
exit $found
