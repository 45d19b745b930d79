"""Where the gradient of one training step lies, and what the model thought of its anchors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detector.criterion.weighting import is_box_term
from detector.layouts import Layout
from detector.structures import Matches, Predictions
from detector.training.setup import Setup

SCORES = torch.linspace(0, 1, 41, dtype=torch.float64)

LOGITS = torch.linspace(-10, 10, 41, dtype=torch.float64)
"""Of p_t, even in log(p_t / (1 - p_t)): on an even axis nearly all background lies in one bin."""

EDGES = {"scores": SCORES, "p_t": LOGITS, "gradient": LOGITS}
"""Of the histograms of a line; the outermost bins also count what lies beyond them. `gradient` has
the shares that the anchors which `p_t` counts have of the sum of `StepRecord.magnitudes`."""

HARDEST = 0.01
"""Share of the anchors that counts as the hardest."""

SIDES = ("foreground", "background")


def true_probabilities(layout: Layout, logits: Tensor, matches: Matches) -> tuple[Tensor, Tensor]:
    """p_t (P,) of the anchors with an object, and of those that are background.

    With an object it is the score of its class. Of background it is one less the probability of an
    object; under Sigmoid, which asks each class by itself, of the class that is most wrong.
    """
    is_object = matches.foreground
    labels = matches.labels[is_object]
    own = layout.scores(logits[is_object]).gather(1, labels[:, None])[:, 0]
    return own, 1 - layout.foreground(logits[matches.background]).amax(-1)


@dataclass
class StepRecord:
    """Sums over the micro-batches of a step on this rank, which add up over ranks.

    scale: the loss scaler's factor, without which slopes of float16 logits would be rounded to 0;
    every share is one of the scaled gradient. magnitudes: |d class loss / d logits| of every anchor
    that is not neutral.
    """

    layout: Layout
    scale: float = 1.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    magnitudes: list[Tensor] = field(default_factory=list)

    def add(self, predictions: Predictions, matches: Matches, terms: dict[str, Tensor]) -> None:
        """A micro-batch, before its own `backward`, whose graph is kept."""
        class_loss = torch.stack([v for k, v in terms.items() if not is_box_term(k)]).sum()
        scaled = class_loss * self.scale
        (gradient,) = torch.autograd.grad(scaled, predictions.logits, retain_graph=True)
        with torch.no_grad():
            per_anchor = gradient.double().abs().sum(-1)
            logits = predictions.logits.detach().double()
            chosen = matches.background & (per_anchor > 0)
            best = self.layout.scores(logits).amax(-1)
            values = {
                "negative": per_anchor[matches.background].sum(),
                "every": per_anchor[matches.valid].sum(),
                "num_foreground": matches.foreground.sum().double(),
                "num_background": matches.background.sum().double(),
                "selected_background": chosen.sum().double(),
                "selected_score": best[chosen].sum(),
            }
            p_t = true_probabilities(self.layout, logits, matches)
            places = zip(SIDES, (matches.foreground, matches.background), p_t, strict=True)
            for side, place, p in places:
                values[f"scores_{side}"] = counted(best[place], SCORES)
                values[f"p_t_{side}"] = counted(p.logit(), LOGITS)
                values[f"gradient_{side}"] = counted(p.logit(), LOGITS, per_anchor[place])
            for name, value in values.items():
                self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.magnitudes.append(per_anchor[matches.valid])

    def line(self, setup: Setup, step: int) -> dict[str, Any]:
        """The record of the step, the same on every rank."""
        world = setup.world
        flat = torch.cat([value.reshape(-1) for value in self.sums.values()])
        sizes = [value.numel() for value in self.sums.values()]
        parts = world.sum(flat).split(sizes)
        sums = dict(zip(self.sums, (part.tolist() for part in parts), strict=True))
        number = {name: value[0] for name, value in sums.items() if len(value) == 1}
        every, selected = number["every"], number["selected_background"]
        for side in SIDES:
            sums[f"gradient_{side}"] = [
                v / every if every else 0.0 for v in sums[f"gradient_{side}"]
            ]
        hardest = self.hardest(setup, int(number["num_foreground"] + number["num_background"]))
        return {
            "step": step,
            "negative_share": number["negative"] / every if every else 0.0,
            "hardest_share": hardest / every if every else 0.0,
            "num_foreground": int(number["num_foreground"]),
            "num_background": int(number["num_background"]),
            "selected_background": int(selected),
            "selected_score": number["selected_score"] / selected if selected else None,
            **{
                key: {"edges": edges.tolist(), **{s: sums[f"{key}_{s}"] for s in SIDES}}
                for key, edges in EDGES.items()
            },
        }

    def hardest(self, setup: Setup, number: int) -> float:
        """The sum of the largest magnitudes of all ranks; number: of the anchors of all ranks."""
        own = torch.cat(self.magnitudes)
        count = math.ceil(HARDEST * number)
        # The largest of all are among the largest of each rank.
        mine = own.topk(min(count, len(own))).values.tolist()
        every = [value for part in setup.world.gather(mine) for value in part]
        return float(sum(sorted(every, reverse=True)[:count]))


def counted(values: Tensor, edges: Tensor, weights: Tensor | None = None) -> Tensor:
    """(B,) of how many values, or of the sum of their weights, lie between edges (B + 1,).

    On the CPU, where equal input gives equal sums to the bit.
    """
    place = torch.bucketize(values.double().cpu(), edges[1:-1], right=True)
    weights = torch.ones_like(values) if weights is None else weights
    sums = torch.bincount(place, weights.double().cpu(), minlength=len(edges) - 1)
    return sums.to(values.device)
