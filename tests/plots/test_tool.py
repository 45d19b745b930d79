"""`tools/plot_losses.py` as a user calls it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from detector.config.registry import LOSSES
from tests.commands import Command

FEW = ("points=16", "formats=[svg]")

PLUGIN = """
import torch
import torch.nn.functional as F

from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.config.registry import LOSSES


@LOSSES.register("squared_logit")
class SquaredLogit(ClassLoss):
    layout_class = Sigmoid

    def forward(self, predictions, matches):
        sign = torch.where(matches.one_hot(self.num_classes), 1.0, -1.0)
        return {"class": F.relu(1 - sign * predictions.logits) ** 2}
"""


def test_writes_png_and_svg_and_says_what_they_show(command: Command, tmp_path: Path) -> None:
    outcome = command("plot_losses", "losses=[focal,cross_entropy,ssd]", "points=16")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    focal = [line for line in lines if line.startswith("| focal ")]
    assert [[cell.strip() for cell in line.split("|")[2:-1]] for line in focal] == [
        ["1", "0.25", "4x", "100x"],
        ["0", "0.75", "4x", "100x"],
    ]
    assert "ssd: y = 0 is drawn beside a positive, without which it does not count" in lines
    assert lines[-2:] == ["plots/losses.png", "plots/losses.svg"]
    assert (tmp_path / "plots/losses.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "plots/losses.svg").read_text(encoding="utf-8")
    assert ">0.25 CE / 100</text>" in svg  # text is text


def test_draws_each_registered_loss(command: Command, tmp_path: Path) -> None:
    panel = ("panels=[loss_probability]", "width=3.4")
    outcome = command("plot_losses", "losses=all", "each=true", *panel, *FEW, "output_dir=out")
    assert outcome.code == 0
    assert sorted(file.stem for file in (tmp_path / "out").iterdir()) == LOSSES.names


@pytest.mark.parametrize("figure", ["focal_1", "focal_5", "focal_6", "posterior"])
def test_a_figure_is_one_command(command: Command, tmp_path: Path, figure: str) -> None:
    outcome = command("plot_losses", f"figure={figure}", *FEW)
    assert (outcome.code, outcome.out) == (0, f"plots/{figure}.svg\n")
    assert (tmp_path / f"plots/{figure}.svg").is_file()


def test_options_of_a_loss_and_a_column_of_a_paper(command: Command) -> None:
    outcome = command(
        "plot_losses",
        "losses=[{name: focal, gamma: 0.5}, {name: focal, alpha: null}]",
        "panels=[loss_probability]",
        "width=3.4",
        *FEW,
    )
    assert outcome.code == 0
    assert Path("plots/losses.svg").read_text(encoding="utf-8").count('<g id="axes_') == 1


def test_a_loss_from_elsewhere_is_drawn(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_plotted_loss.py").write_text(PLUGIN)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(LOSSES, "_classes", dict(LOSSES._classes))
    outcome = command("plot_losses", "losses=squared_logit", "plugins=[my_plotted_loss]", *FEW)
    assert outcome.code == 0
    # (1 - x)^2 at x = 0 and at log 9: 1, and 0 from x = 1 on. Its slope grows without bound.
    (row,) = [line for line in outcome.out.splitlines() if line.startswith("| squared logit | 1")]
    assert row.split("|")[3].strip() == "402"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["losses=[focall]"], "loss=focall: unknown (did you mean 'focal'?); allowed: "),
        (["losses=[{name: focal, gama: 1}]"], "loss.gama: unknown key (did you mean 'gamma'?)"),
        (["losses=[{name: focal, gamma: -1}]"], "loss.gamma: -1.0 given, at least 0 is needed"),
        (["losses=[]"], "losses: [] given, all or a list of names is needed"),
        (["figure=focal_2"], "figure: 'focal_2' is not one of curves, posterior, focal_1, "),
        (["panels=[]"], "panels: none given, at least one is needed"),
        (["formats=[pdf]"], "formats[0]: 'pdf' is not one of png, svg"),
        (["points=3"], "points: 3 given, at least 16 is needed"),
        (["width=0.1"], "width: 0.1 given, at least 1 or null is needed"),
        (["figure=posterior", "losses=[ssd]"], "losses: ssd given, one with a posterior in "),
        (["plugins=[nowhere]"], "plugins: there is no module nowhere; "),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    command: Command, tmp_path: Path, argv: list[str], message: str
) -> None:
    outcome = command("plot_losses", *argv)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_extra_is_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = command("plot_losses")
    assert outcome.code == 2
    assert outcome.message.endswith("pip install matplotlib")
    assert list(tmp_path.iterdir()) == []
