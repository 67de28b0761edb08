#!/bin/sh
# eomt-edge-bridge ros2 and images against real ROS 2: rclpy of Kilted and Jazzy (community wheels from PyPI, x86-64) and Cyclone DDS. In a network
# namespace that has only loopback. SECONDS_LOSSLESS=60: how long every frame is counted.
set -eu
cd "$(dirname "$0")/.."
. scripts/apt.sh
PATH=$PATH:/usr/sbin # where Debian has ip
command -v ip >/dev/null 2>&1 || apt_install iproute2
python3 -c "import ensurepip" 2>/dev/null || apt_install python3-venv
venvs=${ROS2_CHECK_VENVS:-target/ros2-check}
python=${EOMT_EDGE_TEST_PYTHON:-/usr/bin/python3}
# venv NAME PACKAGE ...: once
venv() {
    [ -e "$venvs/$1/complete" ] && return
    "$python" -m venv --clear "$venvs/$1"
    name=$1
    shift
    "$venvs/$name/bin/pip" install -q "$@"
    touch "$venvs/$name/complete"
}
mkdir -p "$venvs"
venv kilted ros-kilted-rclpy==9.1.2 ros-kilted-rmw-fastrtps-cpp==9.3.3 ros-kilted-sensor-msgs==5.5.1 ros-kilted-std-msgs==5.5.1 \
    ros-kilted-diagnostic-msgs==5.5.1 cyclonedds==11.0.1 numpy==2.4.6 pillow==13.0.0
venv jazzy ros-jazzy-rclpy==7.1.6 ros-jazzy-rmw-fastrtps-cpp==8.4.3 ros-jazzy-sensor-msgs==5.3.6 ros-jazzy-std-msgs==5.3.6 \
    ros-jazzy-diagnostic-msgs==5.3.6 numpy==2.4.6 pillow==13.0.0
# The driver is plain Python: the wheels put their paths into the environment, and another distribution's nodes would inherit them.
# shellcheck disable=SC2016
exec unshare --map-root-user --net sh -c '
    ip link set lo up multicast on
    ip route add 224.0.0.0/4 dev lo
    exec "$@"' sh "$python" scripts/ros2_check.py "$venvs"
