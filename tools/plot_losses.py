"""Draws losses: `python tools/plot_losses.py losses=[focal,cross_entropy,ssd]`. See --help."""

from __future__ import annotations

from pathlib import Path

from cli import main
from omegaconf import DictConfig


def plot_losses(node: DictConfig) -> None:
    """Pictures of the losses that are named, or of the focal loss paper; prints what they show."""
    from detector import schema
    from detector.config import plain_values
    from detector.plots.style import require_matplotlib
    from detector.registry import import_plugins
    from detector.startup import check_versions
    from detector.tool_config import PlotLossesConfig

    config = schema.build(PlotLossesConfig, plain_values(node))
    require_matplotlib()
    check_versions()
    import_plugins(config.plugins)

    from detector.plots.comparison import markdown, remarks  # torch takes seconds
    from detector.plots.pictures import draw_all, subjects_of
    from detector.plots.style import save, styled

    subjects = subjects_of(config.losses) if config.figure in ("curves", "posterior") else []
    if config.figure == "curves":
        print(markdown(subjects), *remarks(subjects), sep="\n")
    with styled():
        for stem, figure in draw_all(
            subjects,
            config.figure,
            each=config.each,
            panels=config.panels,
            width=config.width,
            points=config.points,
        ):
            for path in save(figure, Path(config.output_dir), stem, config.formats):
                print(path)


if __name__ == "__main__":
    main("plot_losses", plot_losses)
