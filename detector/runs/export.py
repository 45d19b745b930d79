"""Weights of a checkpoint for other programs: safetensors, which cannot hold code."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from detector.errors import ConfigError
from detector.runs import checkpoint
from detector.runs.checkpoint import weights_to_evaluate, write_atomically


def export(path: str, output: str, *, overwrite: bool = False) -> Path:
    """Writes the weights that are evaluated (averaged ones, where there are any), with what they
    mean as text: config, classes and category ids as JSON, step and versions.

    Raises ConfigError for a file that is no checkpoint, one that is already there, or a name that
    does not end in `.safetensors`.
    """
    target = Path(output)
    if target.suffix != ".safetensors":
        raise ConfigError(
            f"output: {output} given, a name that ends in .onnx, .xml, .pt2 or .safetensors is "
            "needed"
        )
    try:  # after the name, which may be wrong where the library is not needed at all
        from safetensors.torch import save
    except ImportError:
        raise ConfigError(
            "output: safetensors is needed for it: pip install safetensors; .pt2 needs no other "
            "library, .onnx needs pip install 'dense-detector[onnx]'"
        ) from None
    if target.exists() and not overwrite:
        raise ConfigError(f"output: {output} is already there; overwrite=true replaces it")
    saved = checkpoint.load(path)
    weights = {name: _plain(value) for name, value in weights_to_evaluate(saved).items()}
    meaning = {
        "format": "pt",
        "config": json.dumps(saved["config"]),
        "classes": json.dumps(saved["classes"]),
        "category_ids": json.dumps(saved["category_ids"]),
        "step": str(saved.get("step", 0)),
        "detector_version": str(saved["detector_version"]),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, save(weights, meaning))
    return target


def _plain(value: torch.Tensor) -> torch.Tensor:
    """A tensor with memory of its own, in the plain order: the format knows no other."""
    return value.detach().clone(memory_format=torch.contiguous_format)
