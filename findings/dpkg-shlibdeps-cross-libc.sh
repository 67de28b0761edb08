#!/bin/bash
# Debian 12's dpkg-shlibdeps (dpkg-dev 1.21.22, 1.21.23) on a program of its cross compiler (libc6-dev-arm64-cross 2.36-8cross1).
#
# One would guess: the dependency that it computes is what the program's symbols need, as it is for a program of this machine: the
# version of the newest symbol. It is not: the cross libc's package brings no list of symbols, only "libc6 (>= 2.36)" for any program,
# so that a package for a board asks for the glibc of the machine that built it and older systems refuse to install what they could run.
# Seen with a program that needs GLIBC_2.34 natively and crosswise: libc6 (>= 2.34) and libc6 (>= 2.36).
#
# Needs root, mmdebstrap and a Debian mirror; makes a Debian 12 in a temporary folder and removes it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
chmod 755 "$work"
TMPDIR=$work mmdebstrap --quiet --variant=minbase --mode=root --aptopt='APT::Install-Recommends "false"' \
    --include=dpkg-dev,gcc,libc6-dev,gcc-aarch64-linux-gnu,libc6-dev-arm64-cross bookworm "$work/root"
cat >"$work/root/try.sh" <<'END'
set -eu
cd "$(mktemp -d)"
dpkg-query -W dpkg-dev libc6-arm64-cross
echo 'int main(void) { return 0; }' >program.c
mkdir debian
printf 'Source: program\n\nPackage: program\nArchitecture: any\n' >debian/control
gcc -o native program.c
aarch64-linux-gnu-gcc -o cross program.c
for program in native cross; do
    arch=$(dpkg --print-architecture)
    [ $program = native ] || arch=arm64
    needs=$(aarch64-linux-gnu-readelf --version-info --wide $program | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
    said=$(DEB_HOST_ARCH=$arch dpkg-shlibdeps -O -l/usr/aarch64-linux-gnu/lib $program 2>/dev/null)
    echo "$program: needs $needs, dpkg-shlibdeps says $said"
done
END
chroot "$work/root" sh /try.sh | tee "$work/seen"
grep -q '^native: needs GLIBC_2.34, .*libc6 (>= 2.34)$' "$work/seen"
grep -q '^cross: needs GLIBC_2.34, .*(>= 2.36)$' "$work/seen"
