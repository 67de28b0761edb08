# Sourced: installs Debian packages as root or through sudo, and says which. `apt_install PACKAGE...`; `as_root COMMAND...`.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
apt_install() {
    command -v apt-get >/dev/null 2>&1 || {
        echo "setup: this machine has no apt-get; install by hand: $*" >&2
        exit 1
    }
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null 2>&1 || {
        echo "setup: neither root nor sudo; ask an administrator to install: $*" >&2
        exit 1
    }
    echo "setup: installing $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}
