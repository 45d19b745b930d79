"""Says what a training would meet, without training: `detector audit`. See --help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked_run
from detector.config import Config
from detector.config.ranges import AtLeast, require_ranges


@dataclass(frozen=True)
class AuditConfig:
    """One call of `tools/audit.py`. See `configs/audit.yaml` for what each key means.

    train: all the other keys.
    """

    train: Config
    limit: Annotated[int | None, AtLeast(1)] = None
    loss_images: Annotated[int, AtLeast(1)] = 16
    page: bool = True

    def __post_init__(self) -> None:
        require_ranges(self)


def run(node: DictConfig) -> None:
    """Counts anchors and objects, computes the first step of every loss, and advises."""
    options, plain = checked_run(AuditConfig, node, own=("limit", "loss_images", "page"))

    from detector.laboratory.audit.audit import audit  # torch takes seconds

    audit(
        options.train,
        plain,
        limit=options.limit,
        loss_images=options.loss_images,
        with_page=options.page,
    )


def main() -> None:
    hydra_app.main("audit", run)
