"""All that an audit finds, for its tables, its page and its pictures."""

from __future__ import annotations

from dataclasses import dataclass

from detector.config import Config
from detector.data.readers.base import Dataset
from detector.laboratory.audit.classes import ClassFacts
from detector.laboratory.audit.counts import Counts
from detector.laboratory.audit.losses import LossRow
from detector.laboratory.audit.overrides import Advice


@dataclass(frozen=True)
class Audit:
    """All that was found.

    counts: of the config as it is. advised: of the same with the advice taken; the same object
    where there is nothing to change. losses: at the config as it is.
    classes: a row for each class.
    """

    config: Config
    dataset: Dataset
    counts: Counts
    advised: Counts
    advised_config: Config
    losses: list[LossRow]
    advice: list[Advice]
    classes: list[ClassFacts]
    seconds: float
