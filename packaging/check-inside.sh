#!/bin/sh
# Within a fresh Debian: the package from its installation to its purge. Called by scripts/package-check.sh.
set -eu
fail() { echo "package-check: $*" >&2; exit 1; }
config=/etc/eomt-edge/eomt-edge.toml
list() { # everything but what dpkg and the user database keep
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \) -prune \
        -o -print | grep -vE '^/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|^/etc/\.pwd\.lock$|^/var/lib/systemd/deb-systemd-helper|^/(proc|sys|dev|tmp|var/lib/dpkg|var/log|var/cache)$' | sort
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
    # minimal systems are set up to leave out documentation
    case $file in /usr/share/man/*) grep -rqs path-exclude /etc/dpkg/dpkg.cfg.d && continue ;; esac
    [ -s $file ] || fail "$file is missing"
done

# an upgrade keeps the configuration, and a unit that was switched off stays off
sed -i 's/^slots = 8/slots = 5/' $config
systemctl disable eomt-edge.service 2> /dev/null
mkdir -p /var/lib/eomt-edge /etc/systemd/system/eomt-edge.service.d
touch /var/lib/eomt-edge/state /etc/systemd/system/eomt-edge.service.d/camera.conf
dpkg --force-confdef --force-confold -i /tmp/next.deb
grep -q '^slots = 5' $config || fail "the upgrade has changed $config"
[ "$(dpkg-query -W -f '${Version}' eomt-edge)" = 9.9.9-1 ] || fail "no upgrade"
[ ! -e /etc/systemd/system/multi-user.target.wants/eomt-edge.service ] || fail "the upgrade has switched the unit on"

dpkg -r eomt-edge
[ ! -e /usr/bin/eomt-edge ] || fail "still there after removal"
grep -q '^slots = 5' $config || fail "removal took the configuration"
dpkg -P eomt-edge
list > /tmp/after
diff /tmp/before /tmp/after || fail "purge leaves or takes the files above"
echo "package-check: installed, upgraded, removed and purged"
