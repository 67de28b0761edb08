#!/bin/sh
# How exposed the service is (systemd-analyze security): at most 1.1 as it is, at most 2.5 with each drop-in that docs/pipes.md names.
set -eu
cd "$(dirname "$0")/.."
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
units=$root/etc/systemd/system
mkdir -p "$units/eomt-edge.service.d"
cp systemd/eomt-edge.service "$units/"

exposure() { # exposure THRESHOLD WHAT
    systemd-analyze security --root="$root" --offline=true --no-pager --threshold="$1" eomt-edge.service > "$root/report" && result=0 || result=$?
    printf '%s: %s\n' "$2" "$(sed -n 's/.*exposure level for eomt-edge.service: //p' "$root/report")"
    [ $result = 0 ] || { cat "$root/report"; exit 1; }
}

exposure 11 "the service"
dropin=$units/eomt-edge.service.d/pipes.conf
rows=0
while IFS='|' read -r _ what lines _; do
    { echo '[Service]'; printf '%s\n' "$lines" | grep -o '`[A-Za-z]*=[^`]*`' | tr -d '`'; } > "$dropin"
    [ "$(wc -l < "$dropin")" -gt 1 ] || continue
    rows=$((rows + 1))
    exposure 25 "with the drop-in for$what"
done <<ROWS
$(grep '^| .*`[A-Z][A-Za-z]*=' docs/pipes.md)
ROWS
[ $rows -ge 4 ] || { echo "unit-check: docs/pipes.md has only $rows drop-ins" >&2; exit 1; }
