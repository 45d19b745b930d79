"""How pages are made of templates: names from files are text there, whatever they hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(folder: Path | None = None) -> Environment:
    """Templates that escape everything and know every name they ask for. folder: where they lie."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # where a page is written

    return Environment(
        loader=None if folder is None else FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=folder is not None,
    )
