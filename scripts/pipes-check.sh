#!/bin/sh
# GStreamer and ffmpeg, live, into the daemon: several formats, odd sizes, the colours of docs/pipes.md. Installs both (Debian packages) where they
# are missing. What `v4l2-ctl --stream-to` and rpicam-vid write needs a camera: their layouts are tested by numbers (src/data/layout.rs).
set -eu
cd "$(dirname "$0")/.."
if ! dpkg-query -W gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good ffmpeg python3-numpy >/dev/null 2>&1; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends \
        gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good ffmpeg python3-numpy
fi
gst-launch-1.0 --version | sed -n 1p
ffmpeg -version | sed -n 1p
exec "${EOMT_EDGE_TEST_PYTHON:-/usr/bin/python3}" scripts/pipes_check.py
