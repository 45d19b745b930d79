#!/usr/bin/env bash
# On a machine with a GPU, in under 5 minutes: the tests that need one, a training step in each mode of
# `compile` and inference beside torchvision at 800 px, TF32, memory, the loader, and a run that is
# resumed. Usage: scripts/gpu_check.sh OUT
# Everything is written into the folder OUT as it comes, and a part that fails does not end the rest.
# PARTS= names some of the parts, PYTHON= chooses the Python, else .venv's or python3. Without a GPU
# every part runs at a size that shows no more than that it runs.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: scripts/gpu_check.sh OUT}
mkdir -p "$out"
default=python3
[ -x .venv/bin/python ] && default=.venv/bin/python
python=${PYTHON:-$default}
failed=0

part() { # SECONDS COMMAND...
    local limit=$1
    shift
    timeout "$limit" "$python" "$@" >>"$out/log.txt" 2>&1
    local code=$?
    echo "$(basename "$1") ${*:2}: exit code $code after $SECONDS s" | tee -a "$out/log.txt"
    [ "$code" = 0 ] || failed=1
}
for name in ${PARTS:-environment step loader inference tests resume precision memory}; do
    case $name in
    tests) part 90 -m pytest -m gpu -v --tb=short -p no:cacheprovider tests/test_gpu.py ;;
    step) part 150 scripts/gpu_check.py step "$out" ;;
    *) part 60 scripts/gpu_check.py "$name" "$out" ;;
    esac
done
cat "$out/gpu_check.jsonl"
exit "$failed"
