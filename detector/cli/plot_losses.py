"""Draws losses: `detector plot_losses 'losses=[focal,cross_entropy,ssd]'`. See --help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked, start
from detector.config.ranges import AtLeast, require_ranges
from detector.config.schema import require


@dataclass(frozen=True)
class PlotLossesConfig:
    """One call of `tools/plot_losses.py`. See `configs/plot_losses.yaml` for what each key means.

    losses: "all", a name, or a list of names and of keys and values with a name.
    """

    losses: Any
    figure: Literal["curves", "posterior", "focal_1", "focal_5", "focal_6"] = "curves"
    each: bool = False
    panels: tuple[
        Literal["loss_probability", "loss_logit", "gradient_probability", "gradient_logit"], ...
    ] = ("loss_probability", "loss_logit", "gradient_probability", "gradient_logit")
    width: Annotated[float | None, AtLeast(1)] = None
    points: Annotated[int, AtLeast(16)] = 401
    formats: tuple[Literal["png", "svg"], ...] = ("png", "svg")
    output_dir: str = "plots"
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_ranges(self)
        for key in ("panels", "formats"):
            require(len(getattr(self, key)) > 0, f"{key}: none given, at least one is needed")


def run(node: DictConfig) -> None:
    """Pictures of the losses that are named, or of the focal loss paper; prints what they show."""
    from detector.plots.style import require_matplotlib

    options = checked(PlotLossesConfig, node)
    require_matplotlib()
    start(options.plugins)

    from detector.plots.losses.comparison import markdown, remarks  # torch takes seconds
    from detector.plots.losses.pictures import draw_all, subjects_of
    from detector.plots.style import save, styled

    subjects = subjects_of(options.losses) if options.figure in ("curves", "posterior") else []
    if options.figure == "curves":
        print(markdown(subjects), *remarks(subjects), sep="\n")
    with styled():
        for stem, figure in draw_all(
            subjects,
            options.figure,
            each=options.each,
            panels=options.panels,
            width=options.width,
            points=options.points,
        ):
            for path in save(figure, Path(options.output_dir), stem, options.formats):
                print(path)


def main() -> None:
    hydra_app.main("plot_losses", run)
