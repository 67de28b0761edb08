# Tools of the scripts that run in the guest. Source it: `. /test/lib.sh`.

config=/etc/eomt-edge/eomt-edge.toml
socket=/run/eomt-edge/masks.sock
out=/test/out
failures=0

ok() { echo "ok $1: ${*:2}"; }
fail() {
    echo "FAIL $1: ${*:2}"
    failures=$((failures + 1))
}

# shot NAME: photographs the display, NAME.png.
shot() {
    local answer=none
    echo "@shot $1" >&9
    read -r -t 60 answer <&9
    [ "$answer" = done ]
}

# until_true SECONDS COMMAND...: tries every half second.
until_true() {
    local end=$((SECONDS + $1))
    while ! "${@:2}"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.5
    done
}

# install_package: as a user does. The service starts, no bridge does; a program that is tried out takes the place of the package's.
install_package() {
    dpkg -i /test/eomt-edge.deb $(ls /test/eomt-edge-bridge.deb 2>/dev/null) || return 1
    [ ! -e /test/program ] || { systemctl stop eomt-edge && cp /test/program /usr/bin/eomt-edge && systemctl start eomt-edge; }
}

# configure 'TEXT': the whole configuration file.
configure() { printf '%s\n' "$1" > "$config"; }

# vivid_load [MODULE PARAMETER...]: the virtual camera. Default: /dev/video0 captures (input 0 HDMI, 1 webcam), /dev/video1 is an output
# that plays into input 0.
vivid_load() {
    modprobe vivid n_devs=1 node_types=0x101 num_inputs=2 input_types=0x03 num_outputs=1 output_types=0x01 "$@"
    udevadm settle
}
vivid_unload() { modprobe -r vivid; }

# frame [SECONDS]: the next thing that the ring says, as JSON.
frame() { timeout "${1:-60}" /test/clients/subscriber --socket "$socket" --frames 1 --json 2>/dev/null; }
# A frame with a picture behind it; one without.
picture_comes() { frame 60 | grep -q '"no_signal": false'; }
silence_comes() { frame 60 | grep -q '"no_signal": true'; }
property() { systemctl show eomt-edge --property="$1" --value; }
journal_says() { journalctl -u eomt-edge --since "@$since" --no-pager | grep -q -e "$1"; }
active() { [ "$(property ActiveState)/$(property SubState)" = active/running ]; }
# other_pid PID: the service runs, as another process.
other_pid() { active && [ "$(property MainPID)" != "$1" ]; }
# stamp: what journal_says looks at begins now.
stamp() { since=$(date +%s.%N); }
