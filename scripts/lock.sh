#!/usr/bin/env bash
# Writes requirements.txt: the version of every package that `pip install .` needs, with the hashes
# of its files, for every supported Python and platform. No download address is recorded: the hashes
# say what a file has to be, not where it comes from. Arguments go to uv, such as `--upgrade`;
# without it the versions of the present file are kept where they still fit.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=$(command -v uv || true)
if [ -z "$uv" ]; then
    tools=$(mktemp -d)
    trap 'rm -rf "$tools"' EXIT
    .venv/bin/python -m venv "$tools"
    "$tools/bin/pip" install --quiet uv
    uv=$tools/bin/uv
fi

# --no-config: nothing of this machine's settings shall enter the file.
env -u UV_FIND_LINKS -u UV_INDEX "$uv" pip compile pyproject.toml --no-config --quiet \
    --output-file requirements.txt --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@"
