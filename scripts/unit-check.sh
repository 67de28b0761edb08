#!/bin/sh
# The services: what systemd says of each unit, and how exposed it is (systemd-analyze security): the daemon at most 1.1 as it is, at most 2.5
# with each drop-in that docs/pipes.md names; a bridge without network 0.5, one that only this machine reaches 1.3, others 1.4.
set -eu
cd "$(dirname "$0")/.."
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
units=$root/etc/systemd/system
mkdir -p "$units/eomt-edge.service.d" "$root/verify"
cp systemd/*.service "$units/"

exposure() { # exposure THRESHOLD UNIT WHAT
    systemd-analyze security --root="$root" --offline=true --no-pager --threshold="$1" "$2.service" > "$root/report" && result=0 || result=$?
    printf '%s: %s\n' "$3" "$(sed -n "s/.*exposure level for $2.service: //p" "$root/report")"
    [ $result = 0 ] || { cat "$root/report"; exit 1; }
}
limit() { # limit UNIT
    case $1 in
        eomt-edge) echo 11 ;;
        eomt-edge-record) echo 5 ;;
        eomt-edge-metrics | eomt-edge-web) echo 13 ;;
        *) echo 14 ;;
    esac
}

for file in systemd/*.service; do
    unit=$(basename "$file" .service)
    # the programs may not be installed here
    sed -E 's|/usr/bin/eomt-edge(-bridge)?|/usr/bin/env|' "$file" > "$root/verify/$unit.service"
    complaints=$(systemd-analyze verify --man=no "$root/verify/$unit.service" 2>&1) && [ -z "$complaints" ] || { echo "unit-check: $file: $complaints" >&2; exit 1; }
    exposure "$(limit "$unit")" "$unit" "$unit"
    [ "$unit" = eomt-edge ] || grep -q "\`$unit\`" docs/bridges.md || { echo "unit-check: docs/bridges.md does not name $unit" >&2; exit 1; }
done
dropin=$units/eomt-edge.service.d/pipes.conf
rows=0
while IFS='|' read -r _ what lines _; do
    { echo '[Service]'; printf '%s\n' "$lines" | grep -o '`[A-Za-z]*=[^`]*`' | tr -d '`'; } > "$dropin"
    [ "$(wc -l < "$dropin")" -gt 1 ] || continue
    rows=$((rows + 1))
    exposure 25 eomt-edge "with the drop-in for$what"
done <<ROWS
$(grep '^| .*`[A-Z][A-Za-z]*=' docs/pipes.md)
ROWS
[ $rows -ge 4 ] || { echo "unit-check: docs/pipes.md has only $rows drop-ins" >&2; exit 1; }
