# `make demo` and `make test` do their own set-up; see README.md.

.PHONY: demo test build bridge lint fmt setup unit-check aarch64-test aarch64-test-all client-check c-check python-check everything device-setup device-test device-test-quick device-test-16k glibc-check onnxruntime-check engines-check pipes-check web-check metrics-check mqtt-check record-check ros2-check zenoh-check peers-check bench-aarch64 deb deb-arm64 deb-arm64-program package-check image image-raspi image-check bare-check soak fuzz model-check miri asan tsan deny clean

# Masks of a moving scene, from the daemon to a second process, and what a small display shows of them: pictures in demo-output/.
demo: setup
	sh scripts/demo.sh

# All tests of the program, its clients and its documentation.
test: setup
	sh scripts/test.sh

build: setup
	. ./scripts/env.sh && cargo build --release $$FEATURES

# The bridge: ROS 2, recordings, the page in the browser, metrics, MQTT.
bridge: setup
	. ./scripts/env.sh && cargo build --release $$BRIDGE

# Installs what is missing and says so.
setup:
	@sh scripts/setup.sh

fmt:
	cargo fmt

# Formatting, lints of the whole program and of the smallest one, and documentation whose links lead somewhere.
lint: setup
	. ./scripts/env.sh && cargo fmt --all --check
	. ./scripts/env.sh && cargo clippy --release --all-targets $$PROGRAM -- -D warnings
	. ./scripts/env.sh && cargo clippy --release --workspace --exclude eomt-edge-bridge --no-default-features -- -D warnings
	. ./scripts/env.sh && RUSTDOCFLAGS="-D warnings" cargo doc --quiet --release --no-deps $$PROGRAM
	. ./scripts/env.sh && cargo clippy --release --all-targets $$BRIDGE -- -D warnings
	. ./scripts/env.sh && cargo clippy --release -p eomt-edge-bridge --no-default-features -- -D warnings
	. ./scripts/env.sh && RUSTDOCFLAGS="-D warnings" cargo doc --quiet --release --no-deps $$BRIDGE

# Licences, second versions, sources and advisories of all dependencies, by deny.toml. ADVISORY_DB=DIR: a clone of rustsec/advisory-db.
deny: setup
	. ./scripts/env.sh && "$$EOMT_EDGE_TEST_PYTHON" scripts/deny.py
	@. ./scripts/env.sh && if command -v cargo-deny >/dev/null; then cargo deny check; else echo "deny: cargo-deny is not installed; 'cargo install --locked cargo-deny' and it asks, too"; fi

# The units, and how exposed each service is; fails above a limit for each, and above 2.5 with a drop-in of docs/pipes.md. Needs systemd's own tool,
# not a running systemd.
unit-check:
	sh scripts/unit-check.sh

# What computes or shares memory, as 64-bit ARM code under an emulator: on a new core, the kernels on a Raspberry Pi 4's too.
aarch64-test:
	sh scripts/aarch64-test.sh

# The whole suite as 64-bit ARM code.
aarch64-test-all:
	sh scripts/aarch64-test.sh all

# The client crate as others get it: packaged, unpacked, built and tested without this workspace.
client-check: setup
	sh scripts/client-check.sh

# The C header by pkg-config and CMake, against the daemon.
c-check: build
	sh scripts/c-check.sh

# The Python client's wheel, types and helpers, and GStreamer's pipelines, against the daemon.
python-check: build
	sh scripts/python-check.sh

# The seqlock and the wake-up in all interleavings of a writer, the server and two readers, under loom.
model-check: setup
	sh scripts/sanitizers.sh loom

# The client crate under Miri, AddressSanitizer and ThreadSanitizer: they need a nightly toolchain, Miri its component too.
miri: setup
	sh scripts/sanitizers.sh miri

asan: setup
	sh scripts/sanitizers.sh address

tsan: setup
	sh scripts/sanitizers.sh thread

# An arm64 machine in QEMU, booted with Debian's kernel, systemd and a virtual camera: everything (device-test), or that the service
# starts, sees and is read, without the bridge (device-test-quick). Evidence in device-test-output/.
device-test: device-setup deb-arm64
	bash tests/device/test.sh full

device-test-quick: device-setup deb-arm64-program
	bash tests/device/test.sh quick

# The quick part on Debian 13 with its kernel of 16 KiB pages, as a Raspberry Pi 5 has.
device-test-16k: device-setup deb-arm64
	bash tests/device/test.sh quick 16k

device-setup:
	bash tests/device/setup.sh

# The converted reference networks in ONNX Runtime.
onnxruntime-check: build
	sh scripts/onnxruntime-check.sh

# GStreamer and ffmpeg, live, into the daemon.
pipes-check: build
	sh scripts/pipes-check.sh

# Metrics before promtool, a Prometheus and twenty scrapers; MQTT before a mosquitto: passwords, TLS, restarts of each part.
metrics-check: build bridge
	sh scripts/metrics-check.sh

mqtt-check: build bridge
	sh scripts/mqtt-check.sh

# ROS 2 nodes of two distributions, and Zenoh as rmw_zenoh configures it, read what the bridge publishes.
ros2-check: build bridge
	sh scripts/ros2-check.sh

zenoh-check: build bridge
	sh scripts/zenoh-check.sh

# Recordings of the bridge in rosbags, mcap, @mcap/core and Rerun; cut, damaged, on a full disk.
record-check: build bridge
	sh scripts/record-check.sh

# Everything that speaks with the program or its bridge and is not in .ci/run.
peers-check: pipes-check ros2-check zenoh-check record-check metrics-check mqtt-check web-check

# The page of the bridge in Chromium, with the daemon. Pictures of it in web-check-output/.
web-check: build bridge
	sh scripts/web-check.sh

# Our files in OpenVINO, rten, ncnn, MNN and ONNX Runtime: makes the table of docs/engines.md. LITERT=1: in LiteRT too.
engines-check: build
	sh scripts/engines-check.sh

# What one inference costs on a Raspberry Pi 4 and 5, ours against ONNX Runtime's: counted and modelled, no board needed.
MODEL ?= models/eomt-nano-scenes.onnx
SIZE ?= 160
bench-aarch64:
	bash benches/aarch64.sh $(MODEL) $(SIZE)

# The Debian packages, program and bridge, in target/debian/, for this machine and for arm64 boards.
deb: setup
	sh scripts/package.sh

deb-arm64: setup
	sh scripts/package.sh arm64

deb-arm64-program: setup
	sh scripts/package.sh arm64 program

# The packages run from glibc 2.31 on: what their programs need, what they say, and a start in Debian 11 (arm64 under an emulator).
glibc-check: deb deb-arm64
	bash scripts/glibc-check.sh

# What is in this machine's packages, what Debian's policy says of them, and that installing, upgrading and purging them leave what they should.
package-check: deb
	sh scripts/package-check.sh

# A flashable disk image in target/image/ with the arm64 package: for machines with UEFI, for the Raspberry Pi 4 and 5.
image: deb-arm64
	sh scripts/image.sh uefi

image-raspi: deb-arm64
	sh scripts/image.sh raspi

# Boots a copy of the UEFI image in QEMU, with a setup file, and checks it over ssh. Evidence in device-test-output/image/.
image-check:
	bash packaging/image/setup.sh check
	python3 packaging/image/setup_test.py
	bash packaging/image/try.sh

# Set-up and a build in fresh roots of Debian 12 and 13 with nothing but git and make, as root and as a user with sudo. An hour on two cores.
bare-check:
	bash scripts/bare-check.sh

# The daemon at full speed for so many frames: memory, descriptors and threads stay as they were, and every frame is counted.
FRAMES ?= 1000000
soak: setup
	sh scripts/soak.sh $(FRAMES)

# Every fuzz target for so many seconds, two at a time; fails on a finding: fuzz-output/. TARGETS="config pickle": only those.
TARGETS ?=
SECONDS ?= 60
fuzz: setup
	bash scripts/fuzz.sh $(SECONDS) $(TARGETS)

# What .ci/run leaves out because it takes hours. CONTRIBUTING.md says when each last ran.
everything: aarch64-test-all miri asan tsan glibc-check device-test device-test-16k engines-check package-check peers-check
	$(MAKE) fuzz SECONDS=60
	SUITE=bullseye $(MAKE) package-check
	$(MAKE) image image-check image-raspi bare-check soak

clean:
	cargo clean
	rm -rf demo-output fuzz-output soak-output device-test-output
