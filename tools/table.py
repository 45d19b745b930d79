"""Prints one table of finished runs: `python tools/table.py folder=runs/losses`. See --help."""

from __future__ import annotations

from pathlib import Path

from cli import main
from omegaconf import DictConfig


def table(node: DictConfig) -> None:
    """The runs in a folder as Markdown, best AP first."""
    from detector import schema
    from detector.config import plain_values
    from detector.engine.table import markdown, read_run, spread
    from detector.errors import ConfigError
    from detector.tool_config import TableConfig

    folder = Path(schema.build(TableConfig, plain_values(node)).folder)
    runs = sorted(path for path in folder.glob("*") if (path / "config.yaml").is_file())
    if not runs:
        raise ConfigError(f"folder: {folder} holds no run folders")
    rows = [read_run(path) for path in runs]
    print(markdown(rows))
    print(f"\n{spread(rows)}")


if __name__ == "__main__":
    main("table", table)
