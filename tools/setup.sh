#!/usr/bin/env bash
# How does a fresh checkout get its environment?
#
#   tools/setup.sh core    .venv with what `make demo` needs
#   tools/setup.sh all     .venv with every extra and the tools of development
#
# Versions come from constraints.txt. A stamp makes a repeat instant. An environment made for
# `core` grows into one for `all`; one made for `all` stays so. PYTHON names another interpreter.
set -euo pipefail

die() {
  echo "setup: $*" >&2
  exit 2
}

level=${1:-all}
case $level in
  core | all) ;;
  *) die "the level is core or all, not '$level'." ;;
esac

cd "$(dirname "$0")/.."
stamp=.venv/.tunediff-setup # "LEVEL CHECKSUM ROOT"; scripts in .venv hold ROOT, so a move counts
state="$(cat pyproject.toml constraints.txt tools/setup.sh | cksum | tr ' ' '-') $PWD"
made=$(cat "$stamp" 2>/dev/null || true)

modern() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if modern .venv/bin/python; then
  [ "$made" = "all $state" ] || [ "$made" = "$level $state" ] && exit 0
fi
[ "${made%% *}" = all ] && level=all

if ! modern .venv/bin/python || { [ -n "$made" ] && [ "${made#* * }" != "$PWD" ]; }; then
  python=
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if modern "$candidate"; then
      python=$candidate
      break
    fi
  done
  [ -n "$python" ] || die "Python 3.11 or newer is needed, and ${PYTHON:-python3} is" \
    "$("${PYTHON:-python3}" --version 2>/dev/null || echo 'not there')." \
    "Install one, or name it: make setup PYTHON=/path/to/python3.11"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python lacks the venv module. On Debian or Ubuntu: apt-get install python3-venv"
  echo "setup: making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
fi

rm -f "$stamp"
.venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt uv

what=.
[ "$level" = all ] && what='.[all,dev]'
set -- --constraint constraints.txt --build-constraint constraints.txt --editable "$what"
for folder in ${PIP_FIND_LINKS:-}; do # uv does not read pip's settings, and refuses absent folders
  [ -d "$folder" ] && set -- "$@" --find-links "$folder"
done
echo "setup: installing $level"
UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-180} \
  .venv/bin/uv pip install --quiet --python .venv/bin/python "$@"
echo "$level $state" >"$stamp"
