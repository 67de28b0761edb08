# What quick.sh checks, then formats, known pictures, the display, and everything that can go wrong.
. /test/quick.sh

camera_config() { # camera_config FORMAT [MORE]
    configure "[source]
uri = \"v4l2:/dev/video0\"
no_signal_after = 2.0
[camera]
format = \"$1\"
${2:-}"
}
check_exposure() {
    systemd-analyze security --no-pager eomt-edge > "$out/security.txt" 2>&1
    local score
    score=$(sed -n 's/.*Overall exposure level for eomt-edge.service: \([0-9.]*\).*/\1/p' "$out/security.txt")
    [ -n "$score" ] && [ "${score%.*}${score#*.}" -le 11 ] && ok exposure "$score" || fail exposure "'$score', see security.txt"
}
# Formats of every kind that vivid offers; its own name of each after the colon.
check_formats() { # check_formats API
    local pair name offered
    offered=$(v4l2-ctl -d /dev/video0 --list-formats | sed -n "s/.*'\([A-Z0-9 ]*\)'.*/\1/p" | tr '\n' ' ')
    for pair in yuyv:YUYV uyvy:UYVY yvyu:YVYU nv12:NV12 nv21:NV21 nv16:NV16 nv24:NV24 yuv420:YU12 grey:GREY grey16:Y16 rgb24:RGB3 bgr24:BGR3 \
        bgrx:BGR4 rgb565:RGBP; do
        name=${pair%:*}
        case " $offered " in *" ${pair#*:} "*) ;; *) fail "format-$1-$name" "vivid does not offer ${pair#*:}"; continue ;; esac
        camera_config "$name"
        stamp
        systemctl reload eomt-edge
        if until_true 30 journal_says 'was read again' && until_true 60 journal_says "camera: .* ${pair#*:} " && until_true 60 picture_comes; then
            ok "format-$1-$name" "$(journalctl -u eomt-edge --since "@$since" --no-pager -o cat | grep 'camera: ' | tail -n 1)"
        else
            fail "format-$1-$name" "$(journalctl -u eomt-edge --since "@$since" --no-pager -o cat | tail -n 2)"
        fi
    done
}
check_known() { # check_known FORMAT FOURCC exact|close
    systemctl stop eomt-edge # timings cannot change while somebody streams
    v4l2-ctl -d /dev/video1 --set-dv-bt-timings=index=0 > /dev/null
    v4l2-ctl -d /dev/video1 --set-fmt-video-out=width=640,height=480,pixelformat="$2" > "$out/known-$1-output.txt" 2>&1
    v4l2-ctl -d /dev/video0 -i 0 --set-dv-bt-timings=index=0 --set-ctrl=loop_video=1,osd_text_mode=2 > "$out/known-$1.txt" 2>&1
    v4l2-ctl -d /dev/video1 --stream-out-mmap=4 --stream-from="/test/known.$1" --stream-loop > "$out/known-$1-player.txt" 2>&1 &
    local player=$!
    camera_config "$1"
    systemctl start eomt-edge
    timeout 200 python3 /test/picture.py compare "$out/known/known.panoptic.png" "$out/known/known.json" "$3" > "$out/known-$1-result.txt" 2>&1 &&
        ok "known-$1" "$(tail -n 1 "$out/known-$1-result.txt")" || fail "known-$1" "$(tail -n 1 "$out/known-$1-result.txt")"
    [ "$3" = exact ] && check_display "$1"
    kill $player
    wait $player 2> /dev/null
}
check_display() { # check_display FORMAT: while the known picture plays in it
    camera_config "$1" '[display]
kind = "fb"'
    systemctl restart eomt-edge
    # the first picture takes seconds to draw in an emulator; a photograph before that shows a black screen
    until_true 120 python3 /test/picture.py framebuffer > /dev/null 2>&1
    shot overlay || { fail display "no photograph"; return; }
    python3 /test/picture.py framebuffer > "$out/framebuffer.txt" 2>&1 && ok display "$(tail -n 1 "$out/framebuffer.txt"); overlay.png" || fail display "$(tail -n 1 "$out/framebuffer.txt")"
}
check_replug() {
    local pid
    pid=$(property MainPID)
    echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind
    until_true 60 silence_comes && ok unplug "readers are told 'no signal'; $(property StatusText)" || fail unplug "no 'no signal' on the ring"
    echo vivid.0 > /sys/bus/platform/drivers/vivid/bind
    until_true 120 picture_comes && [ "$(property MainPID)" = "$pid" ] && ok replug "frames again, the same process" || fail replug "$(journalctl -u eomt-edge -n 3 -o cat --no-pager)"
}
check_reloads() {
    local pid
    pid=$(property MainPID)
    stamp
    printf '[source]\nuri = "scenes"\nsise = "1x1"\n' > "$config"
    systemctl reload eomt-edge
    until_true 60 journal_says 'reload refused.*sise' && until_true 60 picture_comes && [ "$(property MainPID)" = "$pid" ] &&
        ok reload-config "refused: $(property StatusText)" || fail reload-config "$(journalctl -u eomt-edge -n 3 -o cat --no-pager)"
    head -c 5000 /usr/share/eomt-edge/eomt-nano-scenes.onnx > /etc/eomt-edge/broken.onnx
    camera_config auto
    printf '[model]\npath = "/etc/eomt-edge/broken.onnx"\n' >> "$config"
    stamp
    systemctl reload eomt-edge
    until_true 60 journal_says 'reload refused.*broken.onnx' && until_true 60 picture_comes && [ "$(property MainPID)" = "$pid" ] &&
        ok reload-model "refused, the old one goes on" || fail reload-model "$(journalctl -u eomt-edge -n 3 -o cat --no-pager)"
    camera_config auto
}
check_kill() {
    local pid
    pid=$(property MainPID)
    /test/clients/subscriber --frames 1000000 > "$out/kill-reader.txt" 2>&1 &
    local reader=$!
    until_true 60 grep -q . "$out/kill-reader.txt"
    kill -9 "$pid"
    timeout 60 tail --pid=$reader -f /dev/null && wait $reader
    [ $? = 1 ] && ok kill-reader "a reader learns it: $(tail -n 1 "$out/kill-reader.txt")" || fail kill-reader "$(tail -n 1 "$out/kill-reader.txt")"
    until_true 90 other_pid "$pid" && until_true 60 picture_comes && ok kill "restarted ($(property NRestarts)), frames again" || fail kill "$(property ActiveState)"
}
# One thread stands still and the rest goes on: who notices, and that a new process makes frames again.
hang() { # hang THREAD WORDS-IN-THE-JOURNAL SECONDS
    local pid
    until_true 60 picture_comes
    pid=$(property MainPID)
    stamp
    python3 /test/hang.py "$1" "$pid" > "$out/hang-$1.txt" 2>&1 &
    until_true "$3" other_pid "$pid" && journal_says "$2" && grep -q stopped "$out/hang-$1.txt" && until_true 60 picture_comes &&
        ok "hang-$1" "noticed ('$2'), restarted, frames again" || fail "hang-$1" "$(journalctl -u eomt-edge -n 4 -o cat --no-pager)"
}
check_hang() {
    mkdir -p /run/systemd/system/eomt-edge.service.d
    printf '[Service]\nWatchdogSec=20\n' > /run/systemd/system/eomt-edge.service.d/watchdog.conf # shorter, to save time
    systemctl daemon-reload
    systemctl restart eomt-edge
    hang main 'inference: it has made no progress' 120
    hang eomt-supervisor 'Watchdog timeout' 120
    rm -r /run/systemd/system/eomt-edge.service.d
    systemctl daemon-reload
    systemctl restart eomt-edge
    hang mask-server 'the mask server: it has made no progress' 120
    hang eomt-capture 'no answer for' 240
}
check_hung_display() {
    local pid
    [ -c /dev/fb0 ] || { fail hung-display "no /dev/fb0"; return; }
    camera_config auto '[display]
kind = "fb"'
    systemctl restart eomt-edge
    until_true 120 python3 /test/picture.py framebuffer > /dev/null 2>&1
    pid=$(property MainPID)
    stamp
    python3 /test/hang.py eomt-display "$pid" > "$out/hang-display.txt" 2>&1 &
    until_true 120 journal_says 'display: it has made no progress' && until_true 60 status_says 'display: ' && until_true 60 picture_comes &&
        until_true 60 journal_says 'display: another thread tries it' && [ "$(property MainPID)" = "$pid" ] &&
        ok hung-display "frames go on, the status says '$(property StatusText)'" || fail hung-display "$(property StatusText); $(journalctl -u eomt-edge -n 4 -o cat --no-pager)"
    camera_config auto
    systemctl restart eomt-edge
}
uptime_seconds() { sed 's/\..*//' /proc/uptime; } # bash's SECONDS jump along
status_says() { property StatusText | grep -q -e "$1"; }
# The calendar's clock jumps by years, there and back, while frames come: none is missing, late or flagged, and the process is the same.
check_clock() {
    local pid now before after
    systemctl stop systemd-timesyncd 2> /dev/null
    until_true 60 picture_comes
    pid=$(property MainPID)
    stamp
    timeout 240 /test/clients/subscriber --socket "$socket" --frames 60 --json > "$out/clock.json" 2>&1 &
    local reader=$!
    now=$(date +%s) before=$(uptime_seconds)
    for jump in $((now + 200000000)) 1000000000 $((now + 900000000)) 86400; do
        date -u -s "@$jump" > /dev/null
        sleep 3
    done
    date -u -s "@$((now + $(uptime_seconds) - before))" > /dev/null
    wait $reader
    after=$?
    [ $after = 0 ] && [ "$(grep -c '"no_signal": false' "$out/clock.json")" = 60 ] && ! grep -q '"stale": true' "$out/clock.json" &&
        [ "$(property MainPID)" = "$pid" ] && active && ok clock "five jumps, 60 frames, none stale, the same process" ||
        fail clock "$after, $(tail -n 1 "$out/clock.json")"
}
# What a user without rights, and one with the right to read, can do to the socket's directory, the lock and the ring.
check_hostile() {
    local pid
    until_true 60 picture_comes
    pid=$(property MainPID)
    rm "$socket"
    until_true 30 test -S "$socket" && until_true 60 picture_comes && [ "$(property MainPID)" = "$pid" ] &&
        ok socket "deleted, and bound again by the same process" || fail socket "$(ls -l /run/eomt-edge 2>&1)"
    runuser -u outsider -- flock /run/eomt-edge sleep 100 &
    local locker=$!
    systemctl restart eomt-edge
    until_true 60 picture_comes && ok lock "an outsider's lock on the directory stops nothing" || fail lock "$(property StatusText)"
    kill $locker
    pid=$(property MainPID)
    timeout 60 runuser -u pilot -- python3 /test/clients/soak.py --cheat "$socket" 30 > "$out/cheat.txt" 2>&1
    until_true 60 picture_comes && [ "$(property MainPID)" = "$pid" ] && ok cheat "a reader that tampers for half a minute changes nothing" ||
        fail cheat "$(journalctl -u eomt-edge -n 3 -o cat --no-pager)"
}
check_disk() {
    local after
    mkdir -p /run/full && mount -t tmpfs -o size=64k none /var/lib/eomt-edge && mount -t tmpfs -o size=64k none /tmp
    systemctl restart eomt-edge
    head -c 1M /dev/zero > /var/lib/eomt-edge/full 2> /dev/null
    head -c 1M /dev/zero > /tmp/full 2> /dev/null
    mount -o remount,size=$(($(df --output=used -k /run | tail -n 1) + 4))k /run
    head -c 64M /dev/zero > /run/full/full 2> /dev/null
    # three, one after the other: the first may be older than the full disk
    after=$(timeout 120 /test/clients/subscriber --frames 3 --json 2>&1 | grep -c '"no_signal": false')
    [ "$after" = 3 ] && active && ok full-disk "state, /tmp and /run are full ($(df --output=avail /run | tail -n 1) KiB left), frames go on" || fail full-disk "$after of 3 frames"
    rm -r /run/full
    mount -o remount,size=400M /run
    umount /tmp
    systemctl stop eomt-edge
    umount /var/lib/eomt-edge
    systemctl start eomt-edge
}
check_doctor() {
    setpriv --reuid=eomt-edge --regid=eomt-edge --init-groups env -i PATH=/usr/bin:/bin eomt-edge doctor > "$out/doctor.txt" 2>&1 &&
        ok doctor "as the service's user, without a home: $(tail -n 1 "$out/doctor.txt")" || fail doctor "$(tail -n 1 "$out/doctor.txt"), see doctor.txt"
}
check_stop() {
    local took
    until_true 60 picture_comes
    systemctl stop eomt-edge
    # by systemd's clock: systemctl itself takes a while in an emulator
    took=$((($(property InactiveEnterTimestampMonotonic) - $(property ActiveExitTimestampMonotonic)) / 1000))
    [ $took -lt 1000 ] && [ "$(property Result)" = success ] && [ ! -e "$socket" ] && ok stop "$took ms, the socket is gone" ||
        fail stop "$took ms, $(property Result), $(ls "$socket" 2>&1)"
}
check_usage() {
    echo 'nonsense = 1' > "$config"
    stamp
    systemctl start eomt-edge 2> /dev/null
    sleep 5
    [ "$(property ExecMainStatus)/$(property NRestarts)/$(property ActiveState)" = 2/0/failed ] && ok bad-start "exit code 2, not tried again" ||
        fail bad-start "$(property ExecMainStatus)/$(property NRestarts)/$(property ActiveState)"
    systemctl reset-failed eomt-edge
}

check_package() {
    local pid
    configure '[source]
uri = "scenes"
size = "160x120"'
    systemctl restart eomt-edge
    until_true 60 picture_comes
    pid=$(property MainPID)
    dpkg --force-confdef --force-confold -i /test/next.deb > "$out/upgrade.txt" 2>&1
    until_true 120 other_pid "$pid" && until_true 60 picture_comes && grep -q 'size = "160x120"' "$config" &&
        ok upgrade "$(dpkg-query -W -f '${Version}' eomt-edge), restarted, the configuration is kept" || fail upgrade "see upgrade.txt; $(property ActiveState)"
    dpkg -P eomt-edge eomt-edge-bridge > "$out/purge.txt" 2>&1
    local left # but for the private /tmp that check_disk's mount has hidden from systemd
    left=$(find / -xdev \( -path /proc -o -path /sys -o -path /test -o -path /var/log \) -prune -o -name '*eomt*edge*' ! -name 'systemd-private-*' -print; ls -d /run/eomt-edge 2> /dev/null)
    [ -z "$left" ] && ! systemctl is-active -q eomt-edge && ok purge "nothing is left" || fail purge "left: $left"
}
check_known_pictures() {
    python3 /test/picture.py make /test/clip.png /test/known
    eomt-edge segment --model /usr/share/eomt-edge/eomt-nano-scenes.onnx /test/known.png -o "$out/known"
    check_known rgb24 RGB3 exact
    check_known yuyv YUYV close
    v4l2-ctl -d /dev/video0 -i 1 > /dev/null
}
check_single() { check_formats single; }
check_multi() {
    systemctl stop eomt-edge
    vivid_unload
    vivid_load multiplanar=2
    v4l2-ctl -d /dev/video0 -i 1 > /dev/null
    camera_config auto
    systemctl start eomt-edge
    check_formats multi
}

[ -c /dev/video0 ] || vivid_load
for check in ${only:-check_exposure check_single check_replug check_reloads check_kill check_hang check_hung_display check_clock \
    check_hostile check_disk check_doctor check_known_pictures \
    check_multi check_stop check_usage check_package}; do
    $check
done
