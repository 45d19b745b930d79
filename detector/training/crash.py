"""A step that is not finite: which image, which tensor; and what is kept to look at it again."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from detector.errors import StorageError
from detector.runs import checkpoint
from detector.runs.run_folder import RunFolder
from detector.structures import Batch, MicroBatches, Targets
from detector.training import saving
from detector.training.setup import Setup
from detector.training.state import State

BATCH, CHECKPOINT = "batch.json", "checkpoint.pt"
MOST = 5
"""Faults that a message names."""


def facts_of(micro: MicroBatches) -> list[dict[str, Any]]:
    """What tells the images of each micro-batch, and their random draws."""
    return [
        {"image_ids": list(batch.image_ids), "keys": targets.keys.tolist()}
        for batch, targets in micro
    ]


def write(
    setup: Setup, state: State, folder: RunFolder, micro: MicroBatches, values: dict[str, float]
) -> str:
    """Keeps a step and the state before it for `tools/replay.py`; what to say of it.

    Every process has to call it. values: what was measured, of which something is not finite.
    The latest replaces an earlier one.
    """
    ranks = setup.world.gather(facts_of(micro))
    if not setup.world.is_main:
        return ""
    record = {
        "step": state.step + 1,
        "micro_batch": setup.micro_batch,
        "values": {name: repr(value) for name, value in values.items()},
        "batches": [facts for rank in ranks for facts in rank],
    }
    try:
        folder.crash.mkdir(parents=True, exist_ok=True)
        checkpoint.save(folder.crash / CHECKPOINT, saving.contents(setup, state))
        text = json.dumps(record, indent=1)
        checkpoint.write_atomically(folder.crash / BATCH, text.encode())
    except (StorageError, OSError) as error:
        return f"nothing kept of it ({error})"
    return f"python tools/replay.py folder={folder.path} repeats it"


def in_words(setup: Setup, state: State, micro: MicroBatches, bad_steps: int) -> str:
    """What is said when a run is given up. Every process has to call it."""
    ids = [i for batch, _ in micro for i in batch.image_ids]
    ids = [i for rank in setup.world.gather(ids) for i in rank]
    return (
        f"step {state.step + 1}: loss or gradient not finite {bad_steps} times in a row; the last "
        f"images were {ids}; {name_faults(setup, state, micro)}; "
        "a smaller optim.lr or clip, or a longer warm-up"
    )


def name_faults(setup: Setup, state: State, micro: MicroBatches) -> str:
    """The first faults of the batches of all processes, which all have to call it."""
    faults = [fault for rank in setup.world.gather(examine(setup, state, micro)) for fault in rank]
    if not faults:
        return "no value before the gradient is at fault"
    rest = f" and {len(faults) - MOST} more" if len(faults) > MOST else ""
    return "; ".join(faults[:MOST]) + rest


def examine(setup: Setup, state: State, micro: MicroBatches) -> list[str]:
    """A sentence for each weight, and for each image, that is not finite; the images' first fault.

    Runs the model on this process alone. An image's tensors are looked at in the order in which
    they are computed: its pixels, its boxes, what the model says, the terms, their gradient.
    """
    named = [*state.model.named_parameters(), *state.model.named_buffers()]
    faults = [f"{name}: {share}" for name, p in named if (share := share_not_finite(p))]
    for batch, targets in micro:
        faults += _examine(setup, state, batch, targets)
    return faults


def _examine(setup: Setup, state: State, batch: Batch, targets: Targets) -> list[str]:
    with setup.precision.autocast(setup.world.device):
        predictions = state.model(batch)
    matches = state.criterion.match(predictions.anchors, targets, predictions)
    terms = state.criterion.unweighted(predictions, matches)
    total = torch.stack([term.sum() for term in terms.values()]).sum()
    leaves = {"logits": predictions.logits, "deltas": predictions.deltas}
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    tensors = {"images": batch.images, "boxes of the file": targets.boxes, **leaves}
    tensors |= {"predicted boxes": predictions.boxes}
    tensors |= {f"term {name}": term for name, term in terms.items()}
    for name, gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            tensors[f"gradient of {name}"] = gradient
    faults = []
    for i, image_id in enumerate(batch.image_ids):
        found = ((n, share_not_finite(t[i])) for n, t in tensors.items())
        first = next((f"image {image_id}: {name}, {share}" for name, share in found if share), None)
        faults += [first] if first else []
    return faults


def share_not_finite(values: Tensor) -> str:
    """'3 of 120 values are not finite', or nothing where all are."""
    if not values.is_floating_point():
        return ""
    count = int((~torch.isfinite(values)).sum())
    return f"{count} of {values.numel()} values are not finite" if count else ""
