#!/bin/sh
# The page of `eomt-edge-bridge web` in a real Chromium, with the real daemon and the real bridge, which are killed and started again. Installs Chromium
# and Node.js (Debian packages) where they are missing, and playwright-core under target/. Pictures of the page land in web-check-output/.
set -eu
cd "$(dirname "$0")/.."
if ! dpkg-query -W chromium nodejs python3-numpy >/dev/null 2>&1 || ! command -v npm >/dev/null; then
    . scripts/apt.sh
    apt_install chromium nodejs npm python3-numpy fonts-dejavu-core
fi
node=target/web-check
version=1.65.1
if ! grep -qs "\"version\": \"$version\"" $node/node_modules/playwright-core/package.json; then
    mkdir -p $node
    npm install --prefix $node --no-audit --no-fund --silent "playwright-core@$version"
fi
cp scripts/web_check.mjs $node/ # it finds its modules from where it lies
mkdir -p web-check-output
exec node $node/web_check.mjs "$PWD"
