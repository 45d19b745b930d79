"""Losses that rank: what each positive has above it, exactly, without a table of all pairs.

An entry is one class of one anchor, x its logit. A positive i is to lie above every negative j, and
the step of how far it does is linear between two thresholds of the positive alone:

    H(x_j - x_i) = clip((x_j - x_i) / (2 delta) + 1/2, 0, 1)

So the 2 P thresholds x_i - delta and x_i + delta cut the line into 2 P + 1 bins, and every sum over
negatives of a function that is linear in each bin follows from how many lie in each and what they
sum up to: O(N log P) for N negatives and P positives, where the definition takes O(N P). The same
holds for the gradient of a negative, which is a + b x with a and b of its bin.

None of these losses is the integral of its gradient. The step has hardly a slope, so the error of a
pair moves both of its entries by itself ("error-driven update", Chen et al. 2019, arXiv 1904.06373,
section 3.2; "identity update", Oksuz et al. 2021, arXiv 2107.11669, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST_PAIRS = 2**22
"""Pairs of positives that are looked at together: 32 MB in float64 for each of a few tables."""

AT_ONCE = 2**20
"""Negatives whose logits are in float64 at a time: 8 MB, so that memory is that of their bins."""

ROUNDING = 1e-9
"""A sum of H below this is that of negatives at the foot of the step, which adds up to 0 or nearly
so: nobody is to answer for an error in proportion to it."""


def step(difference: Tensor, delta: float) -> Tensor:
    """(...) H of differences of logits."""
    return (difference / (2 * delta) + 0.5).clamp(0, 1)


@dataclass(frozen=True)
class Thresholds:
    """The 2 P thresholds of P positives, sorted.

    logits: (P,) float64 of the positives, centred, since a + b x of large logits would cancel.
    center: () what was taken off. low, high: (P,) places of x - delta and x + delta among `limits`
    (2 P,), of equal ones any.
    """

    logits: Tensor
    center: Tensor
    limits: Tensor
    low: Tensor
    high: Tensor
    delta: float

    @classmethod
    def of(cls, positives: Tensor, delta: float) -> Thresholds:
        """positives: (P,) logits; P is at least 1."""
        positives = positives.double()
        center = positives.mean()
        logits = positives - center
        limits, order = torch.cat([logits - delta, logits + delta]).sort(stable=True)
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=order.device)
        low, high = places.split(len(logits))
        return cls(logits, center, limits, low, high, delta)

    def bins(self, logits: Tensor, is_negative: Tensor) -> Tensor:
        """(E,) int32 bin of each entry: how many thresholds it reaches, 0 where it is no negative.

        logits: (E,); is_negative (E,) bool.
        """
        parts = []
        for part, own in zip(logits.split(AT_ONCE), is_negative.split(AT_ONCE), strict=True):
            reached = torch.bucketize(
                part.double() - self.center, self.limits, right=True, out_int32=True
            )
            parts.append(torch.where(own, reached, 0))
        return torch.cat(parts)

    def sums(self, logits: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
        """(2 P + 1,) float64 how many negatives each bin has, and the sum of their logits.

        Bin 0 is wrong in both: it holds what is no negative as well, and nobody asks for it.
        """
        num_bins = len(self.limits) + 1
        count = torch.zeros(num_bins, dtype=torch.float64, device=logits.device)
        total = torch.zeros_like(count)
        for part, own in zip(logits.split(AT_ONCE), bins.split(AT_ONCE), strict=True):
            centred = part.double() - self.center
            if logits.device.type == "cpu":
                count += torch.bincount(own, minlength=num_bins)
                total += torch.bincount(own, weights=centred, minlength=num_bins)
                continue
            # There the order in which weights are added up is not the same twice.
            lengths = torch.bincount(own, minlength=num_bins)
            ordered = centred[own.argsort(stable=True)]
            count += lengths
            total += torch.segment_reduce(ordered, "sum", lengths=lengths)
        return count, total

    def negatives_above(self, count: Tensor, total: Tensor) -> Tensor:
        """(P,) the sum of H over all negatives, for each positive. count, total: of `sums`."""
        counts, totals = (_above(values) for values in (count, total))
        whole = counts[self.high + 1]
        partly = counts[self.low + 1] - whole
        sums = totals[self.low + 1] - totals[self.high + 1]
        found = whole + (sums - self.logits * partly) / (2 * self.delta) + partly / 2
        return torch.where(found > ROUNDING, found, 0)

    def spread(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(2 P + 1,) a and b of each bin: a negative x gets a + b x, the sum of weight_i H over all
        positives. weights: (P,)."""
        slope = weights / (2 * self.delta)
        offset = slope * self.logits
        a = torch.zeros(len(self.limits) + 1, dtype=torch.float64, device=weights.device)
        b = torch.zeros_like(a)
        # No place occurs twice, so nothing is added up in an order of its own.
        a[self.low + 1], a[self.high + 1] = weights / 2 - offset, weights / 2 + offset
        b[self.low + 1], b[self.high + 1] = slope, -slope
        return a.cumsum(0), b.cumsum(0)

    def gradient(self, logits: Tensor, bins: Tensor, weights: Tensor) -> Tensor:
        """(E,) gradient of the negatives in the type of their logits, 0 of all others."""
        a, b = self.spread(weights)
        a[0] = b[0] = 0
        parts = [
            (a[own] + b[own] * (part.double() - self.center)).to(part.dtype)
            for part, own in zip(logits.split(AT_ONCE), bins.split(AT_ONCE), strict=True)
        ]
        return torch.cat(parts)

    def rows(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows i of the (P, P) table of H(x_j - x_i) between positives, part by part."""
        size = max(1, MOST_PAIRS // len(self.logits))
        for first in range(0, len(self.logits), size):
            part = slice(first, first + size)
            yield part, step(self.logits - self.logits[part, None], self.delta)


def _above(values: Tensor) -> Tensor:
    """(B + 1,) sums of (B,) values from each place on; 0 at the end."""
    return torch.cat([values.flip(0).cumsum(0).flip(0), values.new_zeros(1)])


@dataclass(frozen=True)
class Errors:
    """What is wrong with each positive, (P,) each, and who is moved for it.

    value: what the loss says. by_negatives: the error that the negatives above it answer for, in
    proportion to H. by_positives: the one that positives answer for, in proportion to H as well;
    `is_to_answer` says which.
    """

    value: Tensor
    by_negatives: Tensor
    by_positives: Tensor | None = None


class RankingErrors:
    """The errors of positives under a loss; what differs between the losses of this kind."""

    def errors(self, thresholds: Thresholds, above: Tensor, quality: Tensor) -> Errors:
        """above: (P,) sum of H over negatives. quality: (P,) float64 IoU of the box and object."""
        raise NotImplementedError

    def is_to_answer(self, quality: Tensor, part: slice) -> Tensor:
        """(p, P) bool: positive j answers for the error `by_positives` of positive i in `part`."""
        raise NotImplementedError


class RankedTerms(torch.autograd.Function):
    """(E,) value of each positive entry, 0 elsewhere, with the gradient of the error-driven update.

    A factor on the term of a positive is a factor on the errors of all its pairs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        is_negative: Tensor,
        index: Tensor,
        quality: Tensor,
        delta: float,
        rule: RankingErrors,
    ) -> Tensor:
        """logits, is_negative: (E,). index: (P,) where the positives are. quality: (P,)."""
        values = torch.zeros_like(logits)
        ctx.is_empty = len(index) == 0
        if ctx.is_empty:
            return values
        thresholds = Thresholds.of(logits[index], delta)
        bins = thresholds.bins(logits, is_negative)
        above = thresholds.negatives_above(*thresholds.sums(logits, bins))
        errors = rule.errors(thresholds, above, quality.double())
        ctx.save_for_backward(logits, bins, index, quality, above)
        ctx.thresholds, ctx.rule, ctx.errors = thresholds, rule, errors
        values[index] = errors.value.to(values.dtype)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factors: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        none = (None,) * 5
        if ctx.is_empty:
            return torch.zeros_like(factors), *none
        logits, bins, index, quality, above = ctx.saved_tensors
        thresholds, errors = ctx.thresholds, ctx.errors
        factor = factors[index].double()
        # A positive with nothing above it has no error, and what is divided by 0 no part in one.
        is_below = above > 0
        amount = torch.where(is_below, factor * errors.by_negatives, 0)
        weights = torch.where(is_below, amount / above, 0)
        gradient = thresholds.gradient(logits, bins, weights)
        own = -amount
        if errors.by_positives is not None:
            quality = quality.double()
            for part, relation in thresholds.rows():
                pairs = torch.where(ctx.rule.is_to_answer(quality, part), relation, 0)
                among = pairs.sum(1)
                error = torch.where(among > 0, factor[part] * errors.by_positives[part], 0)
                share = torch.where(among > 0, error / among, 0)
                own = own + (share[:, None] * pairs).sum(0)
                own[part] -= error
        gradient[index] = own.to(gradient.dtype)
        return gradient, *none


def ranked_terms(
    logits: Tensor,
    targets: Tensor,
    valid: Tensor,
    quality: Tensor | None,
    delta: float,
    rule: RankingErrors,
) -> Tensor:
    """(N, A, K) values of the positive entries, 0 elsewhere.

    logits, targets (bool): (N, A, K). valid: (N, A) bool, the anchor counts. quality: (N, A) of the
    positives, for a rule that asks for it.
    """
    is_negative = valid[..., None] & ~targets
    index = targets.flatten().nonzero().squeeze(1)
    if quality is None:
        of_positives = logits.new_ones(len(index))
    else:
        of_positives = quality.flatten()[index // logits.shape[-1]]
    values = RankedTerms.apply(
        logits.flatten(), is_negative.flatten(), index, of_positives, delta, rule
    )
    return values.view_as(logits)  # type: ignore[union-attr]
