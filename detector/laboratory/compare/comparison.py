"""What a comparison of losses is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from detector.config import Config
from detector.config.ranges import AtLeast, require_ranges
from detector.config.schema import require
from detector.laboratory.compare.metric import parse


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how. See `configs/compare.yaml` for what each key means.

    train: the conditions that all losses share. losses: entries such as "focal" or
    "focal loss.gamma=1". points: evaluations over a run. lr_search: factors on the learning rate
    that are tried for each loss. draws: of the intervals. metric: by which they are compared; it
    may be another one where the same command is given again. sweep: overrides of the steps, of
    which each is a comparison of its own. probes: whether the runs record their own training.
    """

    train: Config
    losses: tuple[str, ...]
    seeds: Annotated[int, AtLeast(1)] = 3
    parallel: Annotated[int, AtLeast(1)] = 1
    points: Annotated[int, AtLeast(1)] = 6
    lr_search: tuple[float, ...] = ()
    draws: Annotated[int, AtLeast(100)] = 500
    metric: str = "AP"
    sweep: tuple[str, ...] = ()
    probes: bool = True

    def __post_init__(self) -> None:
        require(len(self.losses) > 0, "losses: none given, at least one is needed")
        require_ranges(self)
        parse(self.metric)
        is_sound = all(0 < factor < float("inf") for factor in self.lr_search)
        require(is_sound, f"lr_search: {list(self.lr_search)} given, factors above 0 are needed")
        is_single = len(set(self.lr_search)) == len(self.lr_search)
        require(is_single, f"lr_search: {list(self.lr_search)} given, one of them is there twice")
        require(self.train.resume is None, "resume: the same command goes on by itself")
        require(not self.train.overwrite, "overwrite: a new study needs a folder of its own")
        require(self.train.seed == 0, "seed: seeds says how many there are, from 0 on")
