#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints the path of a Python that really runs: `find_python.sh 3.7`, `find_python.sh 3.11`, or `find_python.sh current` (3.11 or newer).
# Refuses to guess: a pyenv shim that exists but fails is passed over, not returned. Exit 1 with advice where nothing fits.
set -u

want=${1:-3.7}
case $want in
    3.7)
        override=${PYTHON37:-}
        override_name=PYTHON37
        names=python3.7
        versions="3.7"
        test_code='import sys, venv; sys.exit(sys.version_info[:2] != (3, 7))'
        ;;
    3.11)
        override=${PYTHON311:-}
        override_name=PYTHON311
        names=python3.11
        versions="3.11"
        test_code='import sys, venv; sys.exit(sys.version_info[:2] != (3, 11))'
        ;;
    current)
        override=${PYTHON_CURRENT:-}
        override_name=PYTHON_CURRENT
        names="python3.11 python3.12 python3.13 python3.14 python3"
        versions="3.11 3.12 3.13 3.14"
        test_code='import sys, venv; sys.exit(sys.version_info[:2] < (3, 11))'
        ;;
    *)
        echo "find_python.sh: got '$want', expected 3.7, 3.11 or current" >&2
        exit 2
        ;;
esac

# Prints the interpreter's own path and ends the search, if it starts, has the version and can make environments.
try() {
    [ -n "$1" ] || return 0
    found=$("$1" -c "$test_code
" >/dev/null 2>&1 && "$1" -c 'import sys; print(sys.executable)' 2>/dev/null) || return 0
    [ -n "$found" ] || return 0
    printf '%s\n' "$found"
    exit 0
}

if [ -n "$override" ]; then
    try "$override"
    echo "find_python.sh: $override_name=$override does not run, is not Python $want, or lacks the venv module; correct or unset it" >&2
    exit 1
fi

for name in $names; do
    try "$(command -v "$name" 2>/dev/null)"
done

for root in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv"; do
    [ -d "$root/versions" ] || continue
    for version in $versions; do
        for candidate in "$root/versions/$version"*/bin/python"$version"; do
            [ -x "$candidate" ] && try "$candidate"
        done
    done
done

if command -v conda >/dev/null 2>&1; then
    base=$(conda info --base 2>/dev/null)
    for version in $versions; do
        for candidate in "$base/bin/python$version" "$base"/envs/*/bin/"python$version"; do
            [ -x "$candidate" ] && try "$candidate"
        done
    done
fi

# Only the main environment is worth a download; the current one is optional.
if [ "$want" = 3.7 ] && command -v uv >/dev/null 2>&1; then
    echo "no Python 3.7 on this machine; asking uv for one" >&2
    uv python install 3.7 >&2 && try "$(uv python find 3.7 2>/dev/null)"
fi

if [ "$want" = 3.7 ]; then
    cat >&2 <<'MESSAGE'
No Python 3.7 that runs was found (looked at: $PYTHON37, python3.7 on PATH, pyenv, conda, uv).
TensorFlow 1.15 exists for Python 3.7 and older only. Do one of these, then run make again:
  pyenv install 3.7.16
  uv python install 3.7
  conda create -n py37 python=3.7
  make setup PYTHON37=/path/to/python3.7
MESSAGE
elif [ "$want" = 3.11 ]; then
    echo "No Python 3.11 that runs was found (looked at: \$PYTHON311, python3.11 on PATH, pyenv, conda)." >&2
else
    echo "No Python 3.11 or newer that runs was found (looked at: \$PYTHON_CURRENT, PATH, pyenv, conda)." >&2
fi
exit 1
