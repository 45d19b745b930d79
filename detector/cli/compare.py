"""Which loss, for these data? `detector compare 'losses=[focal,ssd]' seeds=5`. See --help."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import PROGRAM, checked_run
from detector.config.compose import plain_values
from detector.errors import ConfigError
from detector.laboratory.compare.comparison import Comparison

OWN = ("losses", "seeds", "parallel", "points", "lr_search", "draws", "metric", "sweep", "probes")


def run(node: DictConfig) -> None:
    """Trains each loss with each seed, and reports; the exit code says whether all is done."""
    args = hydra_app.parse(sys.argv[1:])
    if any(word.lstrip("+").startswith("loss=") for word in args.overrides):
        raise ConfigError("loss: losses=[...] says which losses take part")
    comparison, base = checked_run(Comparison, node, OWN)

    def compose(words: Sequence[str]) -> dict[str, Any]:
        # Those of `losses` and `sweep`, which a yaml may state.
        hydra_app.refuse_code_in_words(words, "losses, sweep")
        more = copy.copy(args)
        more.overrides = [*args.overrides, *words]
        values = plain_values(hydra_app.compose(args.config_name or "compare", more))
        return {key: value for key, value in values.items() if key not in OWN}

    folder = Path(comparison.train.output_dir or "runs/compare")
    if comparison.sweep:
        from detector.laboratory.compare.sweep import sweep  # torch takes seconds

        sys.exit(sweep(comparison, compose, folder, PROGRAM))
    from detector.laboratory.compare.compare import compare

    sys.exit(compare(comparison, compose, base, folder, PROGRAM))


def main() -> None:
    hydra_app.main("compare", run)
