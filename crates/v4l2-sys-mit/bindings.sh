#!/bin/sh
# Writes src/bindings.rs anew from this machine's <linux/videodev2.h>: needed only when the program wants something that a newer kernel has.
# Takes libclang (Debian: libclang-dev, linux-libc-dev) and `cargo install bindgen-cli --version 0.72.1`.
set -eu
cd "$(dirname "$0")"
printf '#include <linux/videodev2.h>\n' > wrapper.h
trap 'rm -f wrapper.h' EXIT
bindgen wrapper.h --output src/bindings.rs --rust-target 1.77 --no-doc-comments --merge-extern-blocks \
    --allowlist-type 'v4l2_.*|time_t' --allowlist-var '(V4L2|VIDEO)_.*'
