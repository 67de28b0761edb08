#!/bin/sh
# SHA256SUMS of what is in a folder: sh scripts/checksums.sh FOLDER PATTERN. `sha256sum --check` reads it.
set -eu
cd "$1"
# shellcheck disable=SC2086 # a pattern
sha256sum -- $2 > SHA256SUMS.new
mv SHA256SUMS.new SHA256SUMS
echo "checksums: $(wc -l < SHA256SUMS) in $1/SHA256SUMS"
