"""Which loss, for these data? `python tools/compare.py losses=[focal,ssd] seeds=5`. See --help."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cli
from omegaconf import DictConfig

OWN = ("losses", "seeds", "parallel", "points", "lr_search", "draws", "sweep", "probes")


def compare(node: DictConfig) -> None:
    """Trains each loss with each seed, and reports; the exit code says whether all is done."""
    from detector import config, schema
    from detector.errors import ConfigError
    from detector.registry import import_plugins
    from detector.startup import check_versions
    from detector.study_config import CompareConfig

    args = cli.parse(sys.argv[1:])
    if any(word.lstrip("+").startswith("loss=") for word in args.overrides):
        raise ConfigError("loss: losses=[...] says which losses take part")
    base = config.plain_values(node)
    own = {key: base.pop(key) for key in OWN}
    checked = schema.build(CompareConfig, {**own, "train": base})
    check_versions()
    import_plugins(checked.train.plugins)
    config.check_parts(checked.train)

    def compose(words: Sequence[str]) -> dict[str, Any]:
        more = copy.copy(args)
        more.overrides = [*args.overrides, *words]
        values = config.plain_values(cli.compose(args.config_name or "compare", more))
        return {key: value for key, value in values.items() if key not in OWN}

    folder = Path(checked.train.output_dir or "runs/compare")
    if checked.sweep:
        from detector.laboratory.sweep import sweep  # torch takes seconds

        sys.exit(sweep(checked, compose, folder))
    from detector.laboratory.compare import compare as run

    sys.exit(run(checked, compose, base, folder))


if __name__ == "__main__":
    cli.main("compare", compare)
