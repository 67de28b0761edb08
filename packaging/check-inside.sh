#!/bin/sh
# Within a fresh Debian: the packages from their installation to their purge. Called by scripts/package-check.sh.
set -eu
bridges="images metrics mqtt record ros2 web zenoh"
fail() { echo "package-check: $*" >&2; exit 1; }
config=/etc/eomt-edge/eomt-edge.toml mqtt=/etc/eomt-edge/eomt-edge-mqtt.toml
list() { # everything but what dpkg and the user database keep
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \) -prune \
        -o -print | grep -vE '^/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|^/etc/\.pwd\.lock$|^/var/lib/systemd/deb-systemd-helper|^/(proc|sys|dev|tmp|var/lib/dpkg|var/log|var/cache)$' | sort
}
there() { # there FILE: minimal systems are set up to leave out documentation
    case $1 in /usr/share/man/*) ! grep -rqs path-exclude /etc/dpkg/dpkg.cfg.d || return 0 ;; esac
    [ -s "$1" ] || fail "$1 is missing"
}
export DEBIAN_FRONTEND=noninteractive
list > /tmp/before

dpkg -i /tmp/first.deb
eomt-edge --version
eomt-edge doctor --socket /run/none > /tmp/doctor || true # no camera here may be a problem of the machine's
grep -q "^model .*eomt-nano-scenes" /tmp/doctor || fail "doctor does not find the model: $(cat /tmp/doctor)"
getent passwd eomt-edge > /dev/null || fail "no user"
[ -L /etc/systemd/system/multi-user.target.wants/eomt-edge.service ] || fail "the unit is not enabled"
for file in /usr/share/man/man1/eomt-edge.1.gz /usr/share/man/man5/eomt-edge.toml.5.gz /usr/share/bash-completion/completions/eomt-edge \
    /usr/share/eomt-edge/eomt-edge.cdx.json /usr/include/eomt_edge.h /usr/share/pkgconfig/eomt-edge.pc /usr/share/eomt-edge/python/eomt_edge_client/__init__.py /usr/lib/udev/rules.d/60-eomt-edge.rules; do
    there $file
done

# the bridge: everything is there, off, and refuses what is wrong in one sentence
dpkg -i /tmp/bridge.deb
eomt-edge-bridge --version
for bridge in $bridges; do
    there /usr/lib/systemd/system/eomt-edge-$bridge.service
    there /usr/share/man/man1/eomt-edge-bridge-$bridge.1.gz
    [ ! -e /etc/systemd/system/multi-user.target.wants/eomt-edge-$bridge.service ] || fail "eomt-edge-$bridge is enabled"
    eomt-edge-bridge $bridge --help > /dev/null || fail "eomt-edge-bridge $bridge --help"
done
for file in /usr/share/man/man1/eomt-edge-bridge.1.gz /usr/share/bash-completion/completions/eomt-edge-bridge /usr/share/eomt-edge/eomt-edge-bridge.cdx.json \
    /usr/share/eomt-edge/grafana/eomt-edge.json $mqtt; do
    there $file
done
(cat $mqtt; echo 'nonsense = 1') > /tmp/wrong.toml
result=0
eomt-edge-bridge mqtt --config /tmp/wrong.toml 2> /tmp/mqtt || result=$?
[ $result = 2 ] && [ "$(wc -l < /tmp/mqtt)" = 1 ] && grep -q nonsense /tmp/mqtt || fail "a wrong configuration: $result: $(cat /tmp/mqtt)"

# an upgrade keeps the configuration, and a unit that was switched off stays off
sed -i 's/^slots = 8/slots = 5/' $config
systemctl disable eomt-edge.service 2> /dev/null
mkdir -p /var/lib/eomt-edge /etc/systemd/system/eomt-edge.service.d
touch /var/lib/eomt-edge/state /etc/systemd/system/eomt-edge.service.d/camera.conf
dpkg --force-confdef --force-confold -i /tmp/next.deb
grep -q '^slots = 5' $config || fail "the upgrade has changed $config"
[ "$(dpkg-query -W -f '${Version}' eomt-edge)" = 9.9.9-1 ] || fail "no upgrade"
[ ! -e /etc/systemd/system/multi-user.target.wants/eomt-edge.service ] || fail "the upgrade has switched the unit on"

# of the bridge too: what was enabled stays so, the rest stays off
sed -i '1s/^/# mine\n/' $mqtt
systemctl enable eomt-edge-web.service 2> /dev/null
echo 'OPTIONS=--raw' > /etc/default/eomt-edge-ros2
mkdir -p /var/lib/private/eomt-edge-web /etc/systemd/system/eomt-edge-web.service.d
touch /var/lib/private/eomt-edge-web/web-tls.pem /etc/systemd/system/eomt-edge-web.service.d/override.conf
dpkg --force-confdef --force-confold -i /tmp/next-bridge.deb
grep -q '^# mine' $mqtt || fail "the upgrade has changed $mqtt"
for bridge in $bridges; do
    wanted=/etc/systemd/system/multi-user.target.wants/eomt-edge-$bridge.service
    if [ $bridge = web ]; then [ -L $wanted ]; else [ ! -e $wanted ]; fi || fail "after the upgrade: $bridge"
done

# the program goes, the bridge's configuration stays
dpkg -r eomt-edge
[ ! -e /usr/bin/eomt-edge ] || fail "still there after removal"
grep -q '^slots = 5' $config || fail "removal took the configuration"
dpkg -P eomt-edge
grep -q '^# mine' $mqtt || fail "the program's purge took $mqtt"
[ ! -e $config ] || fail "purge left $config"
dpkg -r eomt-edge-bridge
[ ! -e /usr/bin/eomt-edge-bridge ] || fail "the bridge is still there after removal"
grep -q '^# mine' $mqtt || fail "removal took $mqtt"
dpkg -P eomt-edge-bridge
list > /tmp/after
diff /tmp/before /tmp/after || fail "purge leaves or takes the files above"
echo "package-check: installed, upgraded, removed and purged"
