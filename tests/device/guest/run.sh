# In the guest, started by device-test.service: runs /test/script.sh, and sends what it says, its files (/test/out) and its result.
until [ -c /dev/virtio-ports/lab ] && [ -c /dev/virtio-ports/results ]; do sleep 0.2; done # udev may still be at it
exec 9<> /dev/virtio-ports/lab
exec >&9 2>&1
mkdir -p /test/out
cd /test
echo "up: $(uname -m) $(uname -r), $(nproc) cores, systemd $(systemctl --version | sed -n '1s/systemd //p')"
bash /test/script.sh
result=$?
journalctl --no-pager --boot --output=short-precise > /test/out/journal.txt 2>&1
tar -C /test/out -cf - . > /dev/virtio-ports/results
sync
echo "RESULT rc=$result"
