#!/usr/bin/env bash
# Makes .venv and installs the project into it, editable. Arguments go to the installer, such as
# `--group dev`. uv is used where it is there, venv and pip where not; PYTHON= chooses the Python.
set -euo pipefail
cd "$(dirname "$0")/.."
venv_python=.venv/bin/python

# Runs the candidate rather than looking for it: a version manager's shim may exist and fail, and a
# Python of a Linux distribution may come without what a virtual environment needs.
is_suitable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
        >/dev/null 2>&1
}

choose_python() {
    local candidate
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if is_suitable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 to 3.13 with its venv module is needed and not found as" \
        "${PYTHON:-python3.13, python3.12, python3.11 or python3}; name one: make TARGET" \
        "PYTHON=/path/to/python3.12" >&2
    return 2
}

# `uv pip install --group` came in uv 0.7; an older uv is passed over.
if [[ $(uv pip install --help 2>/dev/null) == *--group* ]]; then
    [ -x "$venv_python" ] || uv venv --allow-existing --python "${PYTHON:->=3.11,<3.14}" .venv
    uv pip install --python "$venv_python" --editable . "$@"
else
    if ! "$venv_python" -m pip --version >/dev/null 2>&1; then
        python=$(choose_python)
        "$python" -m venv --clear .venv
    fi
    # pip learned --group in 25.1, and Python 3.11 brings 23.2.
    "$venv_python" -m pip install --quiet --upgrade 'pip>=25.1'
    "$venv_python" -m pip install --editable . "$@"
fi
