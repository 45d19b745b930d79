"""One table of several runs, from the files they wrote."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from detector.errors import ConfigError
from detector.evaluation.text import markdown
from detector.runs.side_files import NUMBER, read_record, read_records

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def read_run(folder: Path) -> dict[str, Any]:
    """Name, status, metrics and median images per second of a run folder.

    Raises ConfigError where the folder holds no finished run, and names a file that is damaged.
    """
    metrics = folder / "metrics.json"
    if not metrics.is_file():
        raise ConfigError(f"folder: {folder} holds no finished run (no {metrics.name})")
    lines = read_records(folder / "log.jsonl", {"step": int, "images_per_second": NUMBER})
    numbers = read_record(metrics, dict.fromkeys(METRICS, NUMBER | None))
    return {
        "run": folder.name,
        **{name: numbers.get(name) for name in METRICS},
        "steps": lines[-1]["step"],
        "images/s": statistics.median(line["images_per_second"] for line in lines),
    }


def table_of_runs(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table, best AP first; '-' where a number does not exist."""
    columns = ["run", *METRICS, "steps", "images/s"]
    ordered = sorted(rows, key=lambda row: -(row["AP"] or 0.0))
    return markdown([columns, *([_cell(row.get(column)) for column in columns] for row in ordered)])


def spread(rows: list[dict[str, Any]]) -> str:
    """One sentence on how far the runs lie apart."""
    values = [row["AP"] or 0.0 for row in rows]
    return (
        f"AP from {min(values):.3f} to {max(values):.3f} over {len(rows)} runs, one seed each: "
        "what another seed would change is not measured here."
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if value <= 1 else f"{value:.1f}"
    return str(value)
