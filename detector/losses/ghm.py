"""Gradient harmonising: each magnitude of gradient has the same say, however many have it."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from detector.config.ranges import AtLeast, Between
from detector.config.registry import LOSSES
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.losses.cross_entropy import sigmoid_cross_entropy
from detector.structures import Matches, Predictions, promote


def gradient_bins(logits: Tensor, targets: Tensor, num_bins: int) -> Tensor:
    """(...) int64 in [0, num_bins): the bin of |p - y| of logits (...) and boolean targets (...).

    |p - y| in [0, 1] is the slope of the cross entropy; the bins are equally wide.
    """
    slope = torch.where(targets, -logits, logits).sigmoid()
    return (slope * num_bins).long().clamp(max=num_bins - 1)


def count_bins(bins: Tensor, counted: Tensor, num_bins: int) -> Tensor:
    """(N, num_bins) int64 entries in each bin, of bins (N, ...) where `counted` (N, ...)."""
    index = torch.where(counted, bins, num_bins).flatten(1)  # the others go into one bin more
    counts = index.new_zeros(len(index), num_bins + 1)
    return counts.scatter_add_(1, index, index.new_ones(1).expand_as(index))[:, :num_bins]


@LOSSES.register("ghm")
class GHMLoss(ClassLoss):
    """Sigmoid cross entropy, each entry weighted by 1 / how common its gradient is (GHM-C).

    An entry is one class of one anchor, its gradient g = |p - y|, and [0, 1] has `bins` bins. An
    entry of a bin that holds the share f of all entries weighs 1 / (f B), B the number of bins that
    the image fills: each bin has the same weight, whether it holds 100,000 easy negatives or three
    hard ones. The weights have no slope.

    Li et al. 2019, "Gradient Harmonized Single-stage Detector", arXiv 1811.05181, GHM-C with unit
    regions and a moving average; 30 bins and momentum 0.75 are those of its published RetinaNet.
    There the shares are of a device's batch. Here they are

        f = ((1 - m) f_image + m S) / (1 - m^(t + 1)),  S after t steps = sum (1 - m) m^(t - i) f_i

    of the image itself and of the t accepted steps before, each summed over ranks and micro-
    batches. So the loss depends on the image and on the state, and not on how a step is split,
    which the shares of a device's batch would. The image's own part bounds an entry's weight where
    the past says nothing: with the past alone, the first entries to reach an empty bin would have
    an infinite one. On the first step, and with momentum 0, the image's own shares are all.
    The denominator corrects the start from nothing: the published code lacks it, and has all
    weights 1 / (1 - m) = 4 times too large on its first step. Also, bins that a step does not fill
    keep their past there and forget it here.

    The mean over the entries of the image is taken here, so images are counted. `separable`
    is false because an anchor's weight depends on the other anchors of its image. A score has no
    closed form as a posterior: the weights follow the whole distribution of scores.
    """

    layout_class = Sigmoid
    normalizer = "images"
    separable = False

    shares: Tensor
    mass: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        bins: Annotated[int, AtLeast(1)] = 30,
        momentum: Annotated[float, Between(0, 1, is_below=True)] = 0.75,
    ) -> None:
        super().__init__(num_classes)
        self.momentum = momentum
        # S above, and the sum of its coefficients. Their number fixes the bins for the whole run.
        self.register_buffer("shares", torch.zeros(bins, dtype=torch.float64))
        self.register_buffer("mass", torch.zeros((), dtype=torch.float64))

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        logits = promote(predictions.logits)
        targets = matches.one_hot(self.num_classes)
        counted = matches.valid[..., None].expand_as(targets)
        bins = gradient_bins(logits.detach(), targets, len(self.shares))
        counts = count_bins(bins, counted, len(self.shares))
        total = counts.sum(1, keepdim=True).clamp(min=1)
        factors = (self.bin_weights(counts / total.double()) / total).to(logits.dtype)
        weights = factors.gather(1, bins.flatten(1)).view_as(logits)
        loss = sigmoid_cross_entropy(logits, targets)
        return {"class": torch.where(counted, weights * loss, 0)}

    def bin_weights(self, shares: Tensor) -> Tensor:
        """(N, bins) weights of an entry, of the images' own shares (N, bins); 0 in an empty bin."""
        m = self.momentum
        blend = ((1 - m) * shares + m * self.shares) / (1 - m + m * self.mass)
        filled = shares > 0
        return torch.where(filled, 1 / (blend * filled.sum(1, keepdim=True)), 0)

    @torch.no_grad()
    def statistics(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        targets = matches.one_hot(self.num_classes)
        counted = matches.valid[..., None].expand_as(targets)
        bins = gradient_bins(promote(predictions.logits), targets, len(self.shares))
        return {"counts": count_bins(bins, counted, len(self.shares)).sum(0)}

    def update(self, statistics: dict[str, Tensor]) -> None:
        counts = statistics["counts"].double()
        total = counts.sum()
        # A step without a valid anchor says nothing; the tensor decides, so no device is waited on.
        m = torch.where(total > 0, torch.full_like(total, self.momentum), 1.0)
        self.shares = m * self.shares + (1 - m) * counts / total.clamp(min=1)
        self.mass = m * self.mass + (1 - m)
