#!/bin/bash
# `make image-check`: boots a copy of the UEFI image in QEMU as a user would on a board, twice, and checks it over ssh.
#
#     try.sh IMAGE.img [OUTPUT]          needs the packages of `setup.sh check`
#
# The copy is enlarged as by a larger card, and gets a setup file with good lines and wrong ones. One line per check, `PASS NAME: fact` or
# `FAIL NAME: fact`; evidence (serial lines, journals, the files of the boot partition) in OUTPUT, by default device-test-output/image.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
image=${1:-$repo/target/image/eomt-edge-uefi-arm64.img}
output=${2:-$repo/device-test-output/image}
[ -r "$image" ] || { echo "image-check: no image $image; 'make image' makes it" >&2; exit 1; }
started=$SECONDS failures=0 machine=""
rm -rf "$output"
mkdir -p "$output"
work=$(mktemp -d "$(dirname "$(realpath "$image")")/.check.XXXXXX")
sockets=$(mktemp -d) # one connection for all commands; a socket's path must be short
finish() {
    [ -z "$machine" ] || kill "$machine" 2>/dev/null || true
    rm -rf "$work" "$sockets"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

limit=${LIMIT:-1200} # seconds until somebody must be able to log in
verdict() { # verdict NAME FACT COMMAND...: PASS when the command succeeds
    name=$1 fact=$2 result=PASS
    shift 2
    "$@" || result=FAIL failures=$((failures + 1))
    printf '%4d s  %s %s: %s\n' "$((SECONDS - started))" "$result" "$name" "${fact:-(nothing)}" | tee -a "$output/log.txt"
}
same() { [ "$1" = "$2" ]; }
has() { case "$1" in *"$2"*) true ;; *) false ;; esac }
without() { case "$1" in *"$2"*) false ;; *) true ;; esac }

# the copy, and what a user writes on its boot partition
cp --sparse=always "$image" "$work/disk.img"
truncate -s +3G "$work/disk.img"
secret=correct-horse-$RANDOM$RANDOM
ssh-keygen -q -t ed25519 -N '' -C image-check -f "$work/key"
cat > "$work/setup.txt" <<END
# comes from Windows, too
hostname = image-check
user=robo
ssh_key = $(cat "$work/key.pub")
wifi_ssid = Some Network
wifi_password = $secret
wifi_country = germany
timezone = Europe/Berlin
wifi_pasword = mistyped-$secret
END
printf 'ssh_key = ssh-ed25519 AAAA\344 a line in Latin-1\n' >> "$work/setup.txt"
sed -i 's/$/\r/' "$work/setup.txt"
mcopy -o -i "$work/disk.img@@1M" "$work/setup.txt" ::/eomt-edge-setup.txt

firmware=/usr/share/AAVMF/AAVMF_CODE.fd
cp /usr/share/AAVMF/AAVMF_VARS.fd "$work/vars.fd"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
start() { # start NAME
    qemu-system-aarch64 -M virt -cpu cortex-a76 -smp 2 -m 1024 -display none -monitor none -serial "file:$output/$1-serial.log" \
        -drive "if=pflash,format=raw,readonly=on,file=$firmware" -drive "if=pflash,format=raw,file=$work/vars.fd" \
        -drive "if=virtio,format=raw,file=$work/disk.img,cache=unsafe" -device virtio-rng-pci \
        -netdev "user,id=net,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-pci,netdev=net,romfile= < /dev/null &
    machine=$!
}
guest() {
    timeout 240 ssh -i "$work/key" -p "$port" -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile="$work/known" \
        -o ConnectTimeout=60 -o LogLevel=ERROR -o ControlMaster=auto -o ControlPersist=600 -o ControlPath="$sockets/ssh" robo@127.0.0.1 "$@"
}
reach() { # until somebody can log in, not for ever
    for ((end = SECONDS + limit; SECONDS < end; )); do
        kill -0 "$machine" 2>/dev/null || return 1
        if guest true 2>> "$output/ssh.log"; then return 0; fi
        sleep 5
    done
    return 1
}
off() {
    guest sudo systemctl poweroff > /dev/null 2>&1 || true
    for ((end = SECONDS + 180; SECONDS < end; )); do
        kill -0 "$machine" 2>/dev/null || { machine=""; return 0; }
        sleep 2
    done
    return 1
}
common() { # common NAME: what every boot must show
    verdict "$1-hostname" "$(guest hostname)" same "$(guest hostname)" image-check
    state=activating # the daemon is ready after its first inference
    for ((end = SECONDS + 240; SECONDS < end; )); do
        state=$(guest systemctl is-active eomt-edge || true)
        [ "$state" = activating ] || break
        sleep 5
    done
    verdict "$1-service" "eomt-edge is $state" same "$state" active
    guest 'for n in $(seq 60); do [ "$(systemctl is-system-running)" != starting ] && break; sleep 5; done' || true
    failed=$(guest systemctl --failed --plain --no-legend || true)
    verdict "$1-units" "failed units: ${failed:-none}" same "$failed" ""
    guest sudo journalctl -b --no-pager > "$output/$1-journal.txt" 2>&1 || true
    errors=$(guest 'sudo journalctl -b -p err -q --no-pager -u "eomt-edge*" -o cat' || true)
    verdict "$1-journal" "errors of ours: ${errors:-none}" same "$errors" ""
    guest 'systemd-analyze; systemd-analyze blame | head -n 15; free -m; df -h' > "$output/$1-machine.txt" 2>&1 || true
}

start first
reach || { verdict login "nobody could log in within $limit s; see first-serial.log" false; tail -n 20 "$output/first-serial.log"; exit 1; }
verdict login "with the key made a moment ago, $((SECONDS - started)) s after power on" true
common first
verdict version "$(guest eomt-edge --version)" has "$(guest eomt-edge --version)" eomt-edge
groups=$(guest id -Gn)
verdict groups "$groups" has " $groups " " video "
verdict ring-group "$groups" has " $groups " " eomt-edge "
verdict sudo "$(guest sudo -n id -un)" same "$(guest sudo -n id -un)" root
size=$(guest df --output=size -B 1M / | tail -n 1 | tr -d ' ')
disk=$(($(stat -c %s "$work/disk.img") / 1048576))
verdict grown "the root file system has $size MiB of a disk of $disk" [ "$size" -gt $(((disk - 513) * 90 / 100)) ]
verdict timezone "$(guest date +%Z)" has "$(guest date +%Z)" CE
verdict root-locked "$(guest sudo passwd -S root)" has "$(guest sudo passwd -S root)" "root L"
verdict ssh-keys-only "$(guest sudo sshd -T | grep -i '^passwordauth')" same "$(guest sudo sshd -T | grep -i '^passwordauth')" "passwordauthentication no"
report=$(guest sudo cat /boot/efi/eomt-edge-setup.log | tr -d '\r')
for line in "line 9: there is no such key" "line 10: ssh_key is damaged"; do verdict "wrong-line" "$line" has "$report" "WRONG: $line"; done
verdict wrong-line "$(grep WRONG <<< "$report" | head -n 1)" has "$report" "WRONG: line 7: wifi_country must be"
verdict wifi "$(guest sudo ls -l /etc/wpa_supplicant/wpa_supplicant-wlan0.conf)" \
    has "$(guest sudo cat /etc/wpa_supplicant/wpa_supplicant-wlan0.conf)" "ssid=$(printf 'Some Network' | od -An -tx1 | tr -d ' \n')"
ring=$(guest timeout 120 eomt-edge view --socket /run/eomt-edge/masks.sock --frames 1 2>&1 || echo "exit code $?")
verdict masks "the user reads the ring: $(tail -n 1 <<< "$ring")" without "$ring" "exit code"
# the last step of docs/fine-tuning.md as it stands there, with the shipped model for the reader's own
mkdir -p "$work/guide/target"
ln -s "$repo/target/debian" "$work/guide/target/debian"
cp "$repo/models/eomt-nano-scenes.onnx" "$work/guide/mine.int8.onnx"
cat > "$work/guide/ssh_config" <<END
Host board
    HostName 127.0.0.1
    Port $port
    User robo
    IdentityFile $work/key
    UserKnownHostsFile $work/known
    LogLevel ERROR
END
{
    echo 'ssh() { command ssh -F ssh_config "$@" < /dev/null; }'
    echo 'scp() { command scp -F ssh_config "$@"; }'
    sed -n '/^## 5\. The board/,$ { /^```sh$/,/^```$/ { /^```/d; /^make /d; p } }' "$repo/docs/fine-tuning.md"
} > "$work/guide/steps.sh"
guide() (cd "$work/guide" && timeout 600 bash -ex steps.sh)
guide > "$output/guide.txt" 2>&1 && deployed=true || deployed=false
verdict guide "$(grep -c '^s[a-z]* ' "$work/guide/steps.sh") commands of docs/fine-tuning.md: $(tail -n 1 "$output/guide.txt")" "$deployed"
path=$(guest grep -m 1 '^path' /etc/eomt-edge/eomt-edge.toml)
verdict guide-model "$(guest systemctl is-active eomt-edge), $path" has "$path" 'path = "/usr/share/eomt-edge/mine.onnx"'
verdict apt "$(guest sudo apt-get check 2>&1 | tail -n 1)" guest 'sudo apt-get check > /dev/null 2>&1'
verdict sources "$(guest grep -h URIs /etc/apt/sources.list.d/debian.sources | tr '\n' ' ')" same \
    "$(guest 'grep -hoE "https?://[^ ]+" -r /etc/apt | sort -u | grep -vcxF "$(grep -hoE "https?://[^ ]+" -r /usr/share/doc/apt/examples)"')" 0
# what a kernel's package does at an upgrade, but for depmod, which takes minutes here
plugins=/usr/lib/kernel/install.d
guest "sudo env KERNEL_INSTALL_PLUGINS='$plugins/55-initrd.install $plugins/90-loaderentry.install'"' kernel-install add "$(uname -r)" "/boot/vmlinuz-$(uname -r)" "/boot/initrd.img-$(uname -r)" 2>&1 && sudo ls -R /boot/efi' > "$output/kernel-install.txt" && kernel=true || kernel=false
verdict kernel-install "$(guest uname -r), $(grep -c '\.conf$' "$output/kernel-install.txt") entry" "$kernel"
hostkey=$(guest cat /etc/ssh/ssh_host_ed25519_key.pub)
identity=$(guest cat /etc/machine-id)
verdict off "the machine switches itself off" off

mcopy -n -i "$work/disk.img@@1M" ::/eomt-edge-setup.txt ::/eomt-edge-setup.log "$output/"
left=$(grep -v '^#' "$output/eomt-edge-setup.txt" | tr -d '\r' || true)
verdict setup-file "$(grep -c '^#' "$output/eomt-edge-setup.txt") lines are comments; left as they were: ${left:-none}" same "$left" ""
found=$(head -c 513M "$work/disk.img" | grep -a -c "$secret" || true)
verdict secret-gone "$found traces of the Wi-Fi password, right or mistyped, on the boot partition" same "$found" 0

start second
reach || { verdict second-login "nobody could log in within $limit s; see second-serial.log" false; exit 1; }
verdict second-login "the second boot" true
common second
verdict same-machine "machine-id ${identity:0:8}..., ssh host key" same "$(guest cat /etc/machine-id) $(guest cat /etc/ssh/ssh_host_ed25519_key.pub)" "$identity $hostkey"
verdict second-off "the machine switches itself off" off

echo "image-check: $(grep -c ' PASS ' "$output/log.txt") passed, $failures failed, $((SECONDS - started)) s; evidence in ${output#"$repo/"}/" | tee -a "$output/log.txt"
[ "$failures" = 0 ]
