#!/bin/bash
# Boots the device with a program of your own and runs your script in it as root; a loop of about a minute for development.
#
#     tests/device/try.sh SCRIPT OUT [FILE...]
#
# SCRIPT runs as /test/script.sh (`. /test/lib.sh` for its tools); FILEs are copied to /test/files/. What it puts in /test/out/
# comes back in OUT, beside log.txt (what it printed), journal.txt and serial.log.
# PROGRAM=...   the aarch64 program (default: the repository's build); becomes /usr/bin/eomt-edge, with unit, user, model, configuration
# WORK=...      where the machine is kept (default: target/device)
# LIMIT=900     seconds until the machine is switched off
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
work=${WORK:-$repo/target/device}
script=$1 out=$2
shift 2
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
bash "$here/make-root.sh" "$work"
chmod 755 "$payload" # it becomes /
mkdir -p "$payload/test/files"
cp "$here"/guest/* "$payload/test/"
cp "$script" "$payload/test/script.sh"
[ $# = 0 ] || cp -r "$@" "$payload/test/files/"
bash "$here/stage.sh" "$payload" "${PROGRAM:-}"
python3 "$here/lab.py" "$work" "$payload" "$out" --limit "${LIMIT:-900}"
