"""What the first step's loss has to be: most faults of wiring show as a difference."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from detector.criterion.criterion import Criterion
from detector.criterion.weighting import is_box_term
from detector.structures import Anchors, Coder, Matches, Predictions, Targets


def expected_initial_loss(
    criterion: Criterion,
    step: Iterable[tuple[Anchors, Targets]],
    coder: Coder,
    prior: float,
    positives: Tensor,
) -> dict[str, float]:
    """The terms of the first step, had the head no weights but its biases, and `negative_share`.

    The loss itself on constant logits at the layout's initial bias, zero deltas and the matches of
    the step, summed over ranks and micro-batches: one line for any loss. Lin et al. 2017, section
    4.1, choose the bias for what it does to these numbers.

    step: anchors and targets of each micro-batch of this rank. prior: the probability that the
    class outputs begin at. positives: () of the whole step.
    negative_share: share of |d class terms / d logits| that lies on background anchors.
    """
    criterion.progress(0.0)
    sums: dict[str, Tensor] = {}
    for anchors, targets in step:
        predictions = untrained_predictions(criterion, anchors, len(targets.labels), coder, prior)
        matches = criterion.match(anchors, targets, predictions)
        terms = criterion(predictions, matches, positives)
        class_loss = torch.stack([v for k, v in terms.items() if not is_box_term(k)]).sum()
        (gradient,) = torch.autograd.grad(class_loss, predictions.logits)
        for name, value in (terms | gradient_parts(gradient, matches)).items():
            sums[name] = sums.get(name, 0.0) + value.detach()
    world = criterion.world
    numbers_of_step = world.sum(torch.stack([v.double() for v in sums.values()])) / world.size
    numbers = dict(zip(sums, numbers_of_step.tolist(), strict=True))
    negative, every = numbers.pop("negative"), numbers.pop("every")
    return numbers | {"negative_share": negative / every if every else 0.0}


def untrained_predictions(
    criterion: Criterion, anchors: Anchors, num_images: int, coder: Coder, prior: float
) -> Predictions:
    """Predictions that hold the layout's initial bias, (N, A, D), and say the anchors as boxes."""
    bias = criterion.layout.initial_bias(prior).to(anchors.boxes.device)
    shape = (num_images, len(anchors.boxes))
    logits = bias.expand(*shape, -1).clone().requires_grad_()
    deltas = coder.box_layout.initial_bias().to(logits).expand(*shape, -1)
    return Predictions(logits, deltas, anchors, coder)


def gradient_parts(gradient: Tensor, matches: Matches) -> dict[str, Tensor]:
    """() sums of |gradient| (N, A, D) on background anchors and on all."""
    per_anchor = gradient.abs().sum(-1)
    return {"negative": per_anchor[matches.background].sum(), "every": per_anchor.sum()}


def describe(expected: dict[str, float], measured: dict[str, float]) -> str:
    """A line that sets the expected terms of the first step beside the measured ones."""
    parts = [
        f"{name.removeprefix('loss_')} {value:.4g} foretold, {measured[name]:.4g} measured"
        for name, value in expected.items()
        if name in measured
    ]
    share = expected["negative_share"]
    return f"first step: {'; '.join(parts)}; background has {share:.1%} of the class gradient"
