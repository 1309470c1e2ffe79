#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds one environment from its lock: `setup.sh 3.7 .venv` or `setup.sh current .venv-current`.
# Owns the virtual environment and its stamp, nothing else; what is in the lock is decided there.
set -eu

want=${1:?usage: setup.sh 3.7|current FOLDER}
venv=${2:?usage: setup.sh 3.7|current FOLDER}
here=$(cd "$(dirname "$0")/.." && pwd)
case $want in
    3.7) lock=$here/requirements/py37.lock; pip_version=24.0 ;;
    *) lock=$here/requirements/current.lock; pip_version= ;;
esac

python=$("$here/scripts/find_python.sh" "$want")
echo "environment $venv on $python ($("$python" --version 2>&1))"

# A CANN image has its own TensorFlow 1.15 beside npu_bridge: build on it, do not shadow it.
has_npu_tensorflow() {
    "$python" - 2>/dev/null <<'CODE'
import importlib.util, sys
if importlib.util.find_spec("npu_bridge") is None:
    sys.exit(1)
import tensorflow
sys.exit(not tensorflow.__version__.startswith("1.15"))
CODE
}

rm -rf "$venv"
filtered=
trap '[ -z "$filtered" ] || rm -f "$filtered"' EXIT
if [ "$want" = 3.7 ] && has_npu_tensorflow; then
    echo "its TensorFlow 1.15 and npu_bridge are used as they are"
    "$python" -m venv --system-site-packages "$venv"
    filtered=$(mktemp)
    grep -v '^tensorflow==' "$lock" > "$filtered"
    lock=$filtered
else
    "$python" -m venv "$venv"
fi

run_pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
# The pip of an early 3.7 does not know today's wheel names.
if [ -n "$pip_version" ]; then
    run_pip install -qq "pip==$pip_version"
fi
echo "installing $(grep -c '==' "$lock") pinned packages, a few minutes the first time"
run_pip install -qq --no-deps -r "$lock"
if [ -n "$filtered" ]; then
    # What the image itself brings is not ours to judge.
    run_pip check || echo "the lines above concern packages of the image"
else
    run_pip check
fi
touch "$venv/.stamp"
