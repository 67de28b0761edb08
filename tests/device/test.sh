#!/bin/bash
# `make device-test` (all), `make device-test-quick` and `make device-test-16k` (the quick part with pages of 16 KiB): installs on a
# booted arm64 machine, boots it again, and checks.
# ONLY="check_hang check_disk" runs some of the full part's checks. One line per check, `ok NAME: fact` or `FAIL NAME: fact`; evidence in device-test-output/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
part=${1:-full} pages=${2:-4k}
export WORK=${WORK:-$repo/target/device$([ $pages = 4k ] || echo -$pages)}
output=$repo/device-test-output
started=$SECONDS
bash "$here/setup.sh"
. "$repo/scripts/apt.sh"
mkdir -p "$WORK" # before root does, who would own it
as_root bash "$here/make-root.sh" "$WORK" "$pages"
rm -rf "$output"
mkdir -p "$output"
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
chmod 755 "$payload" # it becomes /
mkdir -p "$payload/test"
cp "$here"/guest/* "$payload/test/"
# every segment scores above 0.8 in it, as RGB and as YUYV: none comes and goes with the rounding of colours
cp "$repo/tests/data/clip/000007.png" "$payload/test/clip.png"
bash "$here/stage.sh" "$payload" "${PROGRAM:-}"

cp "$here/guest/install.sh" "$payload/test/script.sh"
python3 "$here/lab.py" "$WORK" "$payload" "$output/install" --limit 180
rm -f "$payload"/test/eomt-edge*.deb
tar -C "$payload" -xf "$output/install/installed.tar"
rm "$output/install/installed.tar"
(echo "only='${ONLY:-}' page_size=$((${pages%k} * 1024))"; cat "$here/guest/$part.sh"; echo 'exit $((failures > 0))') > "$payload/test/script.sh"
result=0
python3 "$here/lab.py" "$WORK" "$payload" "$output/$part" --limit "${LIMIT:-900}" || result=1
# the guest has judged its own /dev/fb0; what the screen shows is another matter: black compresses to 3 KB, the picture to 100 and more
photograph=$output/$part/overlay.png
if [ "$part" = full ] && [ -z "${ONLY:-}" -o -e "$photograph" ]; then
    size=$(stat -c %s "$photograph" 2>/dev/null || echo 0)
    if [ "$size" -gt 50000 ]; then verdict="ok photograph: $size bytes, overlay.png"; else verdict="FAIL photograph: $size bytes" result=1; fi
    echo " $verdict" | tee -a "$output/$part/log.txt"
fi
passed=$(cat "$output"/*/log.txt | grep -c "^ *[0-9.]* ok " || true)
grep -h ' FAIL ' "$output"/*/log.txt || true
echo "device-test ($part, pages of ${pages%k} KiB): ${passed:-?} checks passed, result $result, $((SECONDS - started)) s; evidence in device-test-output/"
exit $result
