"""Prints one table of finished runs: `detector table folder=runs/losses`. See --help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked
from detector.errors import ConfigError


@dataclass(frozen=True)
class TableConfig:
    """One call of `tools/table.py`. folder: what holds the run folders."""

    folder: str


def run(node: DictConfig) -> None:
    """The runs in a folder as Markdown, best AP first."""
    from detector.runs.table import read_run, spread, table_of_runs

    folder = Path(checked(TableConfig, node).folder)
    runs = sorted(path for path in folder.glob("*") if (path / "config.yaml").is_file())
    if not runs:
        raise ConfigError(f"folder: {folder} holds no run folders")
    rows = [read_run(path) for path in runs]
    print(table_of_runs(rows))
    print(f"\n{spread(rows)}")


def main() -> None:
    hydra_app.main("table", run)
