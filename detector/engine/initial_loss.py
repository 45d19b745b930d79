"""What the first step's loss has to be: most faults of wiring show as a difference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.engine.setup import Setup, State
from detector.engine.weighting import is_box_term
from detector.structures import Batch, Matches, Predictions, Targets

MicroBatches = Sequence[tuple[Batch, Targets]]


def foretell(
    setup: Setup, state: State, micro: MicroBatches, positives: Tensor
) -> dict[str, float]:
    """The terms of the first step, had the head no weights but its biases, and `negative_share`.

    The loss itself on constant logits at the layout's initial bias, zero deltas and the matches of
    the batch, summed over ranks and micro-batches: one line for any loss. Lin et al. 2017, section
    4.1, choose the bias for what it does to these numbers. positives: of the step.
    negative_share: share of |d class terms / d logits| that lies on background anchors.
    """
    weights = setup.ramps.apply(0.0, loss=state.loss, box_loss=setup.box_loss)
    sums: dict[str, Tensor] = {}
    for batch, targets in micro:
        predictions = untrained(setup, state, batch)
        matches = setup.matcher(predictions.anchors, targets, predictions)
        terms = setup.weighting(
            state.loss, setup.box_loss, weights, predictions, matches, positives, state.balance
        )
        class_loss = torch.stack([v for k, v in terms.items() if not is_box_term(k)]).sum()
        (gradient,) = torch.autograd.grad(class_loss, predictions.logits)
        for name, value in (terms | gradient_parts(gradient, matches)).items():
            sums[name] = sums.get(name, 0.0) + value.detach()
    facts = setup.world.sum(torch.stack([v.double() for v in sums.values()])) / setup.world.size
    numbers = dict(zip(sums, facts.tolist(), strict=True))
    negative, every = numbers.pop("negative"), numbers.pop("every")
    return numbers | {"negative_share": negative / every if every else 0.0}


def untrained(setup: Setup, state: State, batch: Batch) -> Predictions:
    """Predictions of a batch that hold the layout's initial bias and anchors alone."""
    anchors = state.model.anchors_for(batch)
    bias = state.loss.layout.initial_bias(setup.plain["prior"]).to(setup.world.device)
    shape = (len(batch.images), len(anchors.boxes))
    logits = bias.expand(*shape, -1).clone().requires_grad_()
    return Predictions(logits, logits.new_zeros(*shape, 4), anchors, state.model.coder)


def gradient_parts(gradient: Tensor, matches: Matches) -> dict[str, Tensor]:
    """() sums of |gradient| (N, A, D) on background anchors and on all."""
    per_anchor = gradient.abs().sum(-1)
    return {"negative": per_anchor[matches.background].sum(), "every": per_anchor.sum()}


def in_words(foretold: dict[str, float], measured: dict[str, float]) -> str:
    """A line for the reader."""
    parts = [
        f"{name.removeprefix('loss_')} {value:.4g} foretold, {measured[name]:.4g} measured"
        for name, value in foretold.items()
        if name in measured
    ]
    share = foretold["negative_share"]
    return f"first step: {'; '.join(parts)}; background has {share:.1%} of the class gradient"
