#!/bin/bash
# Puts what `install` in guest/lib.sh installs into PAYLOAD/test/package: program, unit, user, rules, model, configuration; and the clients.
#
#     stage.sh PAYLOAD [PROGRAM]
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
payload=$1 program=${2:-}
[ -n "$program" ] || program=$repo/target/aarch64/aarch64-unknown-linux-gnu/release/eomt-edge
package=$payload/test/package
install -D -m 755 "$program" "$package/usr/bin/eomt-edge"
install -D -m 644 "$repo/systemd/eomt-edge.service" "$package/usr/lib/systemd/system/eomt-edge.service"
install -D -m 644 "$repo/systemd/eomt-edge.sysusers" "$package/usr/lib/sysusers.d/eomt-edge.conf"
install -D -m 644 "$repo/systemd/60-eomt-edge.rules" "$package/usr/lib/udev/rules.d/60-eomt-edge.rules"
install -D -m 644 "$repo/systemd/camera.conf.example" "$package/usr/share/eomt-edge/camera.conf.example"
install -D -m 644 "$repo/models/eomt-nano-scenes.onnx" "$package/usr/share/eomt-edge/eomt-nano-scenes.onnx"
install -D -m 644 "$repo/config/eomt-edge.toml" "$package/etc/eomt-edge/eomt-edge.toml"
install -D -m 644 "$repo/clients/python/eomt_edge_client.py" "$payload/test/clients/eomt_edge_client.py"
aarch64-linux-gnu-gcc -O2 -o "$payload/test/clients/subscriber" -I "$repo/clients/c" "$repo/clients/c/subscriber.c" -lpthread
