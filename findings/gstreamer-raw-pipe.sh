#!/usr/bin/env bash
# GStreamer 1.22.0 (Debian 12), raw video through fdsink.
# One would guess: a frame of 26x18 I420 is 26 * 18 * 3 / 2 = 702 bytes, its colours follow one standard, stdout holds nothing but frames,
#   and y4menc writes the rows that YUV4MPEG2 knows, which has no padding.
# What happens: rows are rounded up to 4 bytes (792 bytes a frame), heights of 4:2:0 to even ones; colours turn from BT.601 to BT.709 as soon
#   as the picture is higher than 576 rows, whatever its width; without -q the program's own words come before the first frame; and
#   y4menc writes the padded rows, which a reader of the format takes for the start of the next plane.
# Needs Debian 12 or a root like it; installs nothing outside of a temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
version=1.22.0
root=$folder/root
mkdir -p "$root/debs"
(cd "$root/debs" && apt-get -o APT::Sandbox::User=root download -q gstreamer1.0-tools="$version*" libgstreamer1.0-0="$version*" gstreamer1.0-plugins-base="$version*" \
    libgstreamer-plugins-base1.0-0="$version*" gstreamer1.0-plugins-good="$version*" liborc-0.4-0 libunwind8 libdw1 libcap2 >/dev/null)
for deb in "$root"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
library=$(dirname "$(find "$root/usr/lib" -name 'libgstreamer-1.0.so.0' | head -1)")
export LD_LIBRARY_PATH=$library GST_PLUGIN_SYSTEM_PATH_1_0=$library/gstreamer-1.0 GST_REGISTRY=$folder/registry
GST_PLUGIN_SCANNER_1_0=$(find "$root/usr" -name gst-plugin-scanner | head -1)
export GST_PLUGIN_SCANNER_1_0
gst=$(find "$root/usr/bin" -name gst-launch-1.0)
"$gst" --version | sed -n 1p

source() { echo "videotestsrc num-buffers=$1 pattern=red ! video/x-raw,format=I420,width=$2,height=$3,framerate=25/1"; }
failed=0
expect() { # what, seen, expected
    echo "$1: $2"
    [ "$2" = "$3" ] || { echo "  this has changed, it was: $3"; failed=1; }
}
# shellcheck disable=SC2046 # words of a pipeline
bytes() { "$gst" -q $(source 1 "$1" "$2") ! fdsink fd=1 | wc -c; }
expect "bytes of a frame of 26x18 (702 without padding)" "$(bytes 26 18)" 792
expect "bytes of a frame of 32x17 (816 without padding)" "$(bytes 32 17)" 864
# shellcheck disable=SC2046
luma() { "$gst" -q $(source 1 "$1" "$2") ! fdsink fd=1 | head -c 1 | od -An -tu1 | tr -d ' '; }
expect "luma of red at 2000x576 (BT.601: 81)" "$(luma 2000 576)" 81
expect "luma of red at 320x578 (BT.709: 63)" "$(luma 320 578)" 63
# shellcheck disable=SC2046
expect "the first word on stdout without -q" "$("$gst" $(source 1 32 16) ! fdsink fd=1 | head -c 7)" Setting
# shellcheck disable=SC2046
"$gst" -q $(source 2 26 18) ! y4menc ! fdsink fd=1 >"$folder/two.y4m"
frame=$(grep -abo FRAME "$folder/two.y4m" | cut -d: -f1 | paste -sd- | awk -F- '{print $2 - $1 - 6}')
expect "bytes of a Y4M frame of 26x18 (702 by the format)" "$frame" 792
exit $failed
