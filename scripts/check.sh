#!/usr/bin/env bash
# Everything that a change has to pass; stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/pyright"
exec make --no-print-directory test
