#!/bin/sh
# Cargo's RUSTC_WORKSPACE_WRAPPER of `make fuzz`: the workspace's own crates with counters for libFuzzer, checks of overflow and of debug
# assertions; crates of others as they are, so that nothing of tract is compiled again. Cargo does not look into this file: after a change
# here, touch fuzz/src/lib.rs and the sources that shall be compiled anew.
#   fuzz-rustc.sh RUSTC ARGUMENTS...
rustc=$1
shift
case " $* " in
*" --crate-name build_script_"* | *" --crate-type proc-macro "* | *" --print "* | *" -vV "*) exec "$rustc" "$@" ;;
esac
case " $* " in
*" --crate-type bin "*) # the engine, for the fuzz targets: they alone become programs here
    set -- "$@" "-Clink-arg=${EOMT_EDGE_LIBFUZZER:?path of libfuzzer.a}" -Clink-arg=-lstdc++ ;;
esac
exec "$rustc" "$@" --cfg libfuzzer -Coverflow-checks=on -Cdebug-assertions=on \
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
