#!/usr/bin/env bash
# Installs what `detector serve` needs for an ONNX file, and no torch: 360 MB instead of gigabytes.
# Arguments go to pip. With PYTHON=... into another environment.
set -euo pipefail

"${PYTHON:-python}" -m pip install "$@" \
    "hydra-core>=1.3.8,<1.4" "omegaconf>=2.3,<2.4" "numpy>=1.26" "pillow>=10.3" "pyyaml>=6.0" \
    "scipy>=1.11" "onnxruntime>=1.20" "starlette>=0.40" "uvicorn>=0.30"
