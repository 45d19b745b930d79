#!/usr/bin/env bash
# On a machine with a GPU, in under 8 minutes: the tests that need one, and training and inference
# beside torchvision at 800 px in bfloat16 and in float32 with TF32. Usage: scripts/gpu_check.sh OUT
# Everything is written into the folder OUT; PYTHON= chooses the Python, else .venv's or python3.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: scripts/gpu_check.sh OUT}
mkdir -p "$out"
default=python3
[ -x .venv/bin/python ] && default=.venv/bin/python
python=${PYTHON:-$default}
failed=0

"$python" -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"' || exit 1
"$python" -m pytest -m gpu -v --tb=short 2>&1 | tee "$out/tests.txt" || failed=1

benchmark() { # NAME OVERRIDES...
    local name=$1
    shift
    timeout 150 "$python" tools/benchmark.py "benchmark.output=$out/$name.json" "$@" || failed=1
}
benchmark resnet50_800_bf16 precision=bfloat16
benchmark resnet50_800_tf32 precision=float32 benchmark.tf32=true
benchmark resnet18_256_bf16 precision=bfloat16 backbone=resnet18 model=small backbone.norm=group \
    backbone.frozen_stages=0 benchmark.height=256 benchmark.width=256 benchmark.classes=4 \
    batch_size=64
exit "$failed"
