"""What the tools that look at several runs or losses are asked; see `configs` for each key."""

from __future__ import annotations

from dataclasses import dataclass

from detector.config import Config
from detector.schema import require, require_at_least


@dataclass(frozen=True)
class CalibrationStudyConfig:
    """One call of `tools/calibration_study.py`. See `configs/calibration_study.yaml`."""

    folder: str
    losses: tuple[str, ...] = ()
    output: str = "docs/studies/calibration_bccd.json"
    page: str = "docs/calibration.md"
    min_detections: int = 50
    draws: int = 500
    seed: int = 0
    data_root: str | None = None
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_at_least(1, self, "min_detections")
        require_at_least(0, self, "draws", "seed")


@dataclass(frozen=True)
class AuditConfig:
    """One call of `tools/audit.py`. See `configs/audit.yaml` for what each key means.

    train: all the other keys.
    """

    train: Config
    limit: int | None = None
    loss_images: int = 16
    page: bool = True

    def __post_init__(self) -> None:
        require_at_least(1, self, "limit", "loss_images")


@dataclass(frozen=True)
class CompareConfig:
    """One call of `tools/compare.py`. See `configs/compare.yaml` for what each key means.

    train: all the other keys.
    """

    train: Config
    losses: tuple[str, ...]
    seeds: int = 3
    parallel: int = 1
    points: int = 6
    lr_search: tuple[float, ...] = ()
    draws: int = 500
    sweep: tuple[str, ...] = ()
    probes: bool = True

    def __post_init__(self) -> None:
        require(len(self.losses) > 0, "losses: none given, at least one is needed")
        require_at_least(1, self, "seeds", "parallel", "points")
        require_at_least(100, self, "draws")
        is_sound = all(0 < factor < float("inf") for factor in self.lr_search)
        require(is_sound, f"lr_search: {list(self.lr_search)} given, factors above 0 are needed")
        is_single = len(set(self.lr_search)) == len(self.lr_search)
        require(is_single, f"lr_search: {list(self.lr_search)} given, one of them is there twice")
        require(self.train.resume is None, "resume: the same command goes on by itself")
        require(not self.train.overwrite, "overwrite: a new study needs a folder of its own")
        require(self.train.seed == 0, "seed: seeds says how many there are, from 0 on")
