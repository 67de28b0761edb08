#!/bin/sh
# What the bridges cost at 640x480 and 15 Hz: the ROS 2 bridge against a plain rclpy node that relays the ring (latency, CPU of both sides), then
# instructions a frame and peak memory of each bridge. In a network namespace that has only loopback; takes a quarter of an hour, asserts nothing.
# EOMT_EDGE, EOMT_EDGE_BRIDGE: other programs than those of target/release. ROUNDS, SECONDS_EACH: see bridge_bench.py.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh
venv=${ROS2_CHECK_VENVS:-target/ros2-check}/kilted # ros2-check.sh makes the same
python=${EOMT_EDGE_TEST_PYTHON:-/usr/bin/python3}
PATH=$PATH:/usr/sbin # where Debian has mosquitto
command -v valgrind >/dev/null 2>&1 || apt_install valgrind
command -v mosquitto >/dev/null 2>&1 || apt_install mosquitto
if [ ! -e "$venv/complete" ]; then
    "$python" -m venv --clear "$venv"
    "$venv/bin/pip" install -q ros-kilted-rclpy==9.1.2 ros-kilted-rmw-fastrtps-cpp==9.3.3 ros-kilted-sensor-msgs==5.5.1 ros-kilted-std-msgs==5.5.1 \
        ros-kilted-diagnostic-msgs==5.5.1 cyclonedds==11.0.1 numpy==2.4.6 pillow==13.0.0
    touch "$venv/complete"
fi
# The drivers are plain Python: the wheels put their paths into the environment, and our programs would inherit them.
# shellcheck disable=SC2016
exec unshare --map-root-user --net sh -c '
    ip link set lo up multicast on
    ip route add 224.0.0.0/4 dev lo
    "$1" scripts/bridge_bench.py "$2"
    "$1" scripts/bridge_cost.py "$2"' sh "$python" "$venv/bin/python"
