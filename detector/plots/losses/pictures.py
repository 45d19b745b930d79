"""Which pictures a call of `tools/plot_losses.py` asks for, one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from detector.config.registry import LOSSES
from detector.config.schema import Plug, coerce, require
from detector.errors import ConfigError
from detector.plots.losses.curves import Subject, subject
from detector.plots.losses.panels import Panel, draw
from detector.plots.losses.paper import PaperFigure, draw_paper
from detector.plots.losses.posterior import draw_posterior
from detector.plots.style import COLUMN, PAGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def subjects_of(losses: Any) -> list[Subject]:
    """The losses of a list of names, or of keys and values such as {name: focal, gamma: 0.5}.

    "all" are those that are registered; a name alone is a list of one. Raises ConfigError.
    """
    entries = LOSSES.names if losses == "all" else [losses] if isinstance(losses, str) else losses
    is_list = isinstance(entries, Sequence) and len(entries) > 0
    require(is_list, f"losses: {losses!r} given, all or a list of names is needed")
    return [subject(_plug(entry, i)) for i, entry in enumerate(entries)]


def _plug(entry: Any, i: int) -> Plug:
    if isinstance(entry, str):
        return Plug(entry, {})
    if isinstance(entry, Mapping):
        return coerce(entry, Plug, f"losses[{i}]")
    raise ConfigError(
        f"losses[{i}]: {entry!r} given, a name or {{name: focal, gamma: 1}} is needed"
    )


def draw_all(
    subjects: Sequence[Subject],
    figure: PaperFigure | str,
    *,
    each: bool,
    panels: Sequence[Panel],
    width: float | None,
    points: int,
) -> Iterator[tuple[str, Figure]]:
    """(name of the file, picture) of each picture. Raises ConfigError where nothing can be drawn.

    figure: of the paper, or "curves" or "posterior" of the losses given. each: a picture for each
    loss beside cross entropy. width: inches; null is a page for `curves` and a column for others.
    """
    if figure == "posterior":
        yield "posterior", draw_posterior(subjects, width=width or COLUMN, points=points)
    elif figure != "curves":
        yield figure, draw_paper(figure, width=width or COLUMN, points=points)  # type: ignore[arg-type]
    else:
        drawn = [one for one in subjects if one.yes or one.no]
        names = ", ".join(one.name for one in subjects)
        require(bool(drawn), f"losses: {names} given, none of them has a curve for one anchor")
        options = {"panels": panels, "width": width or PAGE, "points": points}
        if not each:
            yield "losses", draw(drawn, **options)
            return
        plain = subject(Plug("cross_entropy", {}))
        seen: Counter[str] = Counter()
        for one in drawn:
            seen[one.name] += 1
            stem = one.name if seen[one.name] == 1 else f"{one.name}_{seen[one.name]}"
            yield stem, draw([plain, one], **options, poor_iou=True)
