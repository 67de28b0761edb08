# First boot: installs the package as a user does, and keeps what that has changed in the file system for the next boot.
. /test/lib.sh
packages="eomt-edge $(ls /test/eomt-edge-bridge.deb 2>/dev/null | sed 's/.*/eomt-edge-bridge/')"
touch /test/mark
sleep 0.1
install_package && ok install "$(dpkg-query -W -f '${Package} ${Version} ${Architecture} ${db:Status-Status} ' $packages)" || fail install "see log.txt"
# switched on, and harmless without a camera
until_true 120 active && until_true 60 silence_comes && [ "$(property UnitFileState)" = enabled ] &&
    ok no-camera "active and enabled, '$(property StatusText)'" || fail no-camera "$(property ActiveState), $(property UnitFileState): $(property StatusText)"
systemctl stop eomt-edge
configure '[source]
uri = "scenes"
size = "160x120"
[ring]
checksum = true'
useradd -m -G eomt-edge pilot && useradd -m outsider && ok users "pilot is in the group eomt-edge, outsider is not"
find /etc /usr /home /var/lib -xdev -cnewer /test/mark ! -type d -print0 | tar --null -T - -cf "$out/installed.tar"
exit $((failures > 0))
