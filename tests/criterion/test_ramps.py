"""Options of a loss over the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detector.config import Ramp, from_plain
from detector.config.registry import BOX_LOSSES, LOSSES
from detector.criterion.ramps import build_ramps, value_at
from detector.errors import ConfigError
from tests.training.tiny import go, losses, tiny

GAMMA = {"option": "loss.gamma", "start": 0.0, "end": 2.0, "until": 0.5}


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 3.0), (0.2, 3.0), (0.3, 2.5), (0.4, 2.0), (0.6, 1.0), (1.0, 1.0)]
)
def test_a_ramp_is_a_straight_line_between_begin_and_until(progress: float, value: float) -> None:
    ramp = Ramp("loss.gamma", start=3.0, end=1.0, begin=0.2, until=0.6)
    assert value_at(ramp, progress) == pytest.approx(value)


def test_the_options_of_a_step_depend_on_the_step_alone(tmp_path: Path) -> None:
    weight = {"option": "box_loss.weight", "start": 1.0, "end": 5.0}
    config = from_plain(tiny(tmp_path, ramps=[GAMMA, weight]))
    ramps, loss = build_ramps(config), LOSSES.build(config.loss, 3)
    parts = {"loss": loss, "box_loss": BOX_LOSSES.build(config.box_loss)}
    for progress, gamma, factor in [(0.75, 2.0, 4.0), (0.25, 1.0, 2.0), (0.0, 0.0, 1.0)]:
        assert ramps.apply(progress, **parts) == {"loss": 1.0, "box_loss": factor}
        assert loss.gamma == gamma


def test_a_whole_number_stays_whole(tmp_path: Path) -> None:
    ramp = {"option": "loss.num_hard", "start": 10, "end": 15}
    loss_of = {"name": "ohem", "weight": 1.0, "num_hard": 128}
    config = from_plain(tiny(tmp_path, loss=loss_of, ramps=[ramp]))
    loss = LOSSES.build(config.loss, 3)
    build_ramps(config).apply(0.3, loss=loss)
    assert loss.num_hard == 12  # 11.5 rounded to even
    assert isinstance(loss.num_hard, int)


@pytest.mark.parametrize(
    ("ramp", "words"),
    [
        (
            {"option": "loss.gama"},
            r"ramps\[0\].option: loss.gama.*gamma, .*weight.*'gamma'",
        ),
        ({"option": "optim.lr"}, r"ramps\[0\].option: optim.lr.*loss.OPTION or box_loss.OPTION"),
        ({"option": "loss.gamma", "end": -1.0}, "gamma: -1.0 given, at least 0"),
        ({"option": "loss.weight", "start": -1.0}, r"loss.weight=-1.0 given, at least 0"),
    ],
)
def test_a_ramp_of_what_is_no_number_or_not_allowed_is_refused(
    tmp_path: Path, ramp: dict[str, Any], words: str
) -> None:
    config = from_plain(tiny(tmp_path, ramps=[{"start": 0.0, "end": 1.0, **ramp}]))
    with pytest.raises(ConfigError, match=words):
        build_ramps(config)


def test_an_option_has_one_ramp(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="each option once"):
        build_ramps(from_plain(tiny(tmp_path, ramps=[GAMMA, GAMMA])))


def test_a_line_is_empty_or_goes_forward(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ramps\[0\].begin: 0.7, until: 0.5"):
        from_plain(tiny(tmp_path, ramps=[GAMMA | {"begin": 0.7}]))


def test_training_with_a_ramp_starts_as_with_its_start_and_then_differs(tmp_path: Path) -> None:
    focal = {"name": "focal", "weight": 1.0, "alpha": 0.25}
    plain = go(tiny(tmp_path / "0", loss=focal | {"gamma": 0.0}, steps=3))
    ramped = go(tiny(tmp_path / "1", loss=focal | {"gamma": 2.0}, ramps=[GAMMA], steps=3))
    assert losses(plain)[0] == losses(ramped)[0]
    assert losses(plain)[1] != losses(ramped)[1]
