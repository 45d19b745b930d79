"""The terms of a micro-batch together with what adds their gradient, in one of two ways.

As autograd does it, each operation of a loss writes a tensor (N, A, K) and keeps it for the way
back. Compiled, one function gives the terms and the gradient by the outputs of the head: where the
loss is a sum over anchors, that is one pass over the class outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detector.structures import Matches, Predictions

Criterion = Callable[[Predictions, Matches, Tensor], dict[str, Tensor]]
"""What gives the () terms of a micro-batch by name; the tensor is the () positives of the step."""

Gradients = tuple[Tensor, Tensor]
"""By logits (N, A, D) and by deltas (N, A, B), in the type of each."""


@dataclass(frozen=True)
class Judged:
    """What is said of a micro-batch.

    terms: () by name, without a gradient. backward: adds the gradient of their sum, times the scale
    that was given, to the model's; to be called once.
    """

    terms: dict[str, Tensor]
    backward: Callable[[], None]


def judged_by_autograd(
    criterion: Criterion,
    predictions: Predictions,
    matches: Matches,
    positives: Tensor,
    scale: Tensor,
) -> Judged:
    """scale: () factor on the gradient, against underflow in float16; 1 elsewhere."""
    terms = criterion(predictions, matches, positives)
    total = torch.stack([*terms.values()]).sum() * scale
    return Judged({name: term.detach() for name, term in terms.items()}, total.backward)


def terms_and_gradients(
    criterion: Criterion,
    predictions: Predictions,
    matches: Matches,
    positives: Tensor,
    scale: Tensor,
) -> tuple[dict[str, Tensor], Gradients]:
    """The () terms by name and the gradients: to be compiled, as nothing of it leaves the graph.

    predictions: with logits and deltas that are no part of autograd's graph.
    """
    # Without what they have kept: whether they have is not to be a reason to compile anew.
    predictions, matches = replace(predictions), replace(matches)

    def total(logits: Tensor, deltas: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        seen = replace(predictions, logits=logits, deltas=deltas)
        terms = criterion(seen, matches, positives)
        return torch.stack([*terms.values()]).sum() * scale, terms

    differentiated = torch.func.grad_and_value(total, argnums=(0, 1), has_aux=True)
    gradients, (_, terms) = differentiated(predictions.logits, predictions.deltas)
    return terms, gradients


def judged_by(
    function: Callable[..., tuple[dict[str, Tensor], Gradients]],
    criterion: Criterion,
    predictions: Predictions,
    matches: Matches,
    positives: Tensor,
    scale: Tensor,
) -> Judged:
    """The same by `terms_and_gradients`, compiled."""
    outputs = (predictions.logits, predictions.deltas)
    logits, deltas = (output.detach() for output in outputs)
    seen = replace(predictions, logits=logits, deltas=deltas)
    terms, gradients = function(criterion, seen, matches, positives, scale)
    # Copies: what a CUDA graph has written is overwritten by the next micro-batch.
    kept = torch.stack([*terms.values()]).clone().unbind()
    return Judged(
        dict(zip(terms, kept, strict=True)), lambda: torch.autograd.backward(outputs, gradients)
    )
