# First boot: installs the package as a user does, and keeps what that has changed in the file system for the next boot.
. /test/lib.sh
touch /test/mark
sleep 0.1
put_files && ok install "$(stat -c %s /usr/bin/eomt-edge) bytes of program" || fail install "see log.txt"
systemctl enable eomt-edge
configure '[source]
uri = "scenes"
size = "160x120"
[ring]
checksum = true'
useradd -m -G eomt-edge pilot && useradd -m outsider && ok users "pilot is in the group eomt-edge, outsider is not"
find /etc /usr /home /var/lib -xdev -cnewer /test/mark ! -type d -print0 | tar --null -T - -cf "$out/installed.tar"
exit $((failures > 0))
