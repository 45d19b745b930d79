"""Says what is wrong with data, and what they hold: `detector check`. See --help."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked_run
from detector.config import Config


@dataclass(frozen=True)
class CheckDataConfig:
    """One call of `tools/check_data.py`. See `configs/check_data.yaml` for what each key means.

    train: all the other keys.
    """

    train: Config
    decode: bool = False
    page: bool = True


def run(node: DictConfig) -> None:
    """Reads both splits as a training would, and tells all that is found."""
    options, _ = checked_run(CheckDataConfig, node, own=("decode", "page"))

    from detector.laboratory.check_data import check_data  # torch takes seconds

    check_data(options.train, decode=options.decode, page=options.page)


def main() -> None:
    sys.argv[1:] = [key for word in sys.argv[1:] for key in as_keys(word)]
    hydra_app.main("check_data", run)


def as_keys(word: str) -> list[str]:
    """A folder that is named alone is the root of data whose layout is to be found out."""
    if "=" in word or word.startswith("-") or not Path(word).expanduser().is_dir():
        return [word]
    quoted = word.replace("\\", "\\\\").replace("'", "\\'")
    return ["data=auto", f"data.root='{quoted}'"]
