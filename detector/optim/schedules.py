"""Learning-rate schedules: pure functions of the step, so that a checkpoint need not save them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated

from detector.config.ranges import Between
from detector.config.registry import SCHEDULES
from detector.config.schema import require


class Schedule(ABC):
    """A factor in [0, 1] on the optimizer's rate."""

    @abstractmethod
    def __call__(self, step: int, num_steps: int) -> float:
        """The factor of step 0, 1, ..., num_steps - 1."""


def warm_up(step: int, warmup_steps: float, start: float) -> float:
    """A line from `start` at step 0 to 1 at `warmup_steps`, 1 afterwards."""
    if step >= warmup_steps:
        return 1.0
    return start + (1 - start) * step / warmup_steps


@SCHEDULES.register("cosine")
class Cosine(Schedule):
    """Warm-up, then half a cosine from 1 to `final` at the last step.

    warmup_share: share of the run. Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5.
    """

    def __init__(
        self,
        *,
        warmup_share: Annotated[float, Between(0, 1, is_below=True)] = 0.1,
        warmup_start: Annotated[float, Between(0, 1)] = 0.04,
        final: Annotated[float, Between(0, 1)] = 0.0,
    ) -> None:
        self.warmup_share = warmup_share
        self.warmup_start = warmup_start
        self.final = final

    def __call__(self, step: int, num_steps: int) -> float:
        warmup_steps = self.warmup_share * num_steps
        if step < warmup_steps:
            return warm_up(step, warmup_steps, self.warmup_start)
        progress = (step - warmup_steps) / max(1.0, num_steps - warmup_steps)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@SCHEDULES.register("multistep")
class MultiStep(Schedule):
    """Warm-up, then the rate falls by `gamma` at each milestone, a share of the run.

    The defaults are RetinaNet's: a tenth at 60,000 and at 80,000 of 90,000 steps (section 4.1).
    """

    def __init__(
        self,
        *,
        milestones: Annotated[tuple[float, ...], Between(0, 1, is_above=True, is_below=True)] = (
            2 / 3,
            8 / 9,
        ),
        gamma: Annotated[float, Between(0, 1, is_above=True)] = 0.1,
        warmup_share: Annotated[float, Between(0, 1, is_below=True)] = 0.01,
        warmup_start: Annotated[float, Between(0, 1)] = 0.001,
    ) -> None:
        self.milestones = milestones
        self.gamma = gamma
        self.warmup_share = warmup_share
        self.warmup_start = warmup_start

    def __call__(self, step: int, num_steps: int) -> float:
        passed = sum(step >= round(m * num_steps) for m in self.milestones)
        return warm_up(step, self.warmup_share * num_steps, self.warmup_start) * self.gamma**passed


@SCHEDULES.register("flat_cosine")
class FlatCosine(Schedule):
    """Warm-up, the full rate until a share of the run, then half a cosine to `final`.

    flat_until, warmup_share: shares of the run, both from its start. The rate stays high for longer
    than by `Cosine`, which suits runs that may be stopped early. The defaults are RTMDet's for 300
    epochs (Lyu et al. 2022, arXiv 2212.07784; mmdetection's rtmdet_l_8xb32-300e_coco: half of the
    run, a twentieth at the end, 1,000 steps of warm-up).
    """

    def __init__(
        self,
        *,
        flat_until: float = 0.5,
        warmup_share: Annotated[float, Between(0, 1, is_below=True)] = 0.01,
        warmup_start: Annotated[float, Between(0, 1)] = 0.001,
        final: Annotated[float, Between(0, 1)] = 0.05,
    ) -> None:
        require(
            warmup_share <= flat_until < 1,
            f"flat_until: {flat_until} given, at least warmup_share ({warmup_share}) and below 1 "
            "is allowed",
        )
        self.flat_until = flat_until
        self.warmup_share = warmup_share
        self.warmup_start = warmup_start
        self.final = final

    def __call__(self, step: int, num_steps: int) -> float:
        flat_steps = self.flat_until * num_steps
        if step < flat_steps:
            return warm_up(step, self.warmup_share * num_steps, self.warmup_start)
        progress = (step - flat_steps) / max(1.0, num_steps - flat_steps)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
