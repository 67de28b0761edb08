# Second boot: the service came up by itself; who may read what it makes; frames of the camera.
. /test/lib.sh
mkdir -p "$out"

check_boot() {
    until_true 120 active || { systemctl status eomt-edge --no-pager > "$out/status.txt"; fail boot "$(property ActiveState), see status.txt"; return; }
    ok boot "active by itself, type $(property Type), watchdog $(property WatchdogUSec), status '$(property StatusText)'"
}
check_pages() {
    local got
    got=$(getconf PAGESIZE)
    [ "$got" = "$page_size" ] && ok pages "$got bytes, $(uname -r), glibc $(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)" || fail pages "$got bytes, not $page_size"
}
check_scenes() {
    local got
    got=$(frame 90)
    echo "$got" > "$out/scenes.json"
    echo "$got" | grep -q '"no_signal": false.*"checksum_ok": true.*"label"' && ok scenes "$(echo "$got" | grep -o '"label": "[a-z]*"' | sort -u | tr -d '\n')" || fail scenes "$got"
}
check_ring() {
    local who
    for who in pilot outsider; do
        runuser -u $who -- env PYTHONPATH=/test/clients timeout 120 python3 -m eomt_edge_client --frames 1 --json > "$out/python-$who.json" 2> "$out/python-$who.txt"
        python_result=$?
        runuser -u $who -- timeout 90 /test/clients/subscriber --frames 1 --json > "$out/c-$who.json" 2> "$out/c-$who.txt"
        c_result=$?
        if [ $who = pilot ]; then
            [ $python_result$c_result = 00 ] && grep -q '"segments": \[{' "$out/python-$who.json" "$out/c-$who.json" &&
                ok ring-group "a login user in the group reads with Python and with C" || fail ring-group "$python_result $c_result: $(cat "$out"/*-pilot.txt)"
        else
            [ $python_result$c_result = 11 ] && grep -qi 'masks.sock.*permission' "$out/python-$who.txt" && grep -qi 'masks.sock.*permission' "$out/c-$who.txt" &&
                ok ring-other "refused: $(tail -n 1 "$out/c-$who.txt")" || fail ring-other "$python_result $c_result: $(cat "$out"/*-outsider.txt)"
        fi
    done
}
# As `docker run -v /run/eomt-edge:/run/eomt-edge` does it: the directory is bound into a mount namespace, and survives a restart.
check_container() {
    unshare -m sh -c 'mount --bind /run/eomt-edge /mnt || exit 3
        follow() { timeout 90 /test/clients/subscriber --socket /mnt/masks.sock --frames 1 --json; }
        follow && systemctl restart eomt-edge && follow' > "$out/container.json" 2> "$out/container.txt"
    local result=$?
    [ $result = 0 ] && [ "$(grep -c '"checksum_ok"' "$out/container.json")" = 2 ] &&
        ok container "a bound directory is read before and after a restart" || fail container "$result: $(cat "$out/container.txt")"
}
check_camera() {
    vivid_load || { fail camera "vivid does not load"; return; }
    v4l2-ctl -d /dev/video0 -i 1 --list-formats-ext > "$out/formats.txt"
    configure '[source]
uri = "v4l2:/dev/video0"'
    stamp
    systemctl reload eomt-edge
    # systemd says "reloaded" when the signal is sent; the daemon says so when it is done
    until_true 60 journal_says 'was read again' && until_true 60 picture_comes && frame 60 > "$out/camera.json" && grep -q '"width": 640, "height": 480' "$out/camera.json" &&
        ok camera "frames of vivid after a reload: $(journalctl -u eomt-edge --since "@$since" --no-pager -o cat | grep -i 'frames:' | tail -n 1)" ||
        fail camera "$(journalctl -u eomt-edge --since "@$since" --no-pager -o cat | tail -n 3)"
}
# The bridge within its unit's sandbox: as another user, through the socket's group, with an address of its own.
metrics_say() { python3 -c "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics', timeout=20).read().decode())" > "$out/metrics.txt" 2>&1 && grep -qx "$1" "$out/metrics.txt"; }
check_bridge() {
    local enabled
    enabled=$(systemctl list-unit-files 'eomt-edge-*' --state=enabled --no-legend | wc -l)
    systemctl enable --now eomt-edge-metrics 2> "$out/bridge.txt"
    until_true 60 metrics_say 'eomt_up 1' && [ "$enabled" = 0 ] && grep -q '^eomt_frames_published_total [1-9]' "$out/metrics.txt" &&
        ok bridge "off until enabled; then: $(systemctl show eomt-edge-metrics --property=StatusText --value)" ||
        fail bridge "$enabled enabled before; $(systemctl show eomt-edge-metrics --property=StatusText --value): $(journalctl -u eomt-edge-metrics --no-pager -o cat | tail -n 3)"
    systemctl disable --now eomt-edge-metrics 2> "$out/bridge.txt"
}
# $only: some checks instead of all, for development
[ -n "${only:-}" ] || for check in check_boot check_pages check_scenes check_ring check_container $(command -v eomt-edge-bridge >/dev/null && echo check_bridge) check_camera; do $check; done
