"""The first step's loss, foretold and measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detector.config.registry import LOSSES
from detector.criterion.initial_loss import describe, gradient_parts
from detector.structures import BACKGROUND, IGNORE
from tests.by_hand import match, predict
from tests.training.tiny import go, tiny

PLAIN_HEAD = {"fpn": {"channels": 32}, "head": {"channels": 32, "num_convs": 4, "norm": "none"}}


@pytest.mark.parametrize("name", LOSSES.names)
def test_every_loss_begins_where_its_prior_puts_it(name: str, tmp_path: Path) -> None:
    folder = go(tiny(tmp_path, loss={"name": name, "weight": 1.0}, model=PLAIN_HEAD, steps=1))
    record = json.loads((folder / "initial_loss.json").read_text())
    foretold, measured = record["foretold"], record["measured"]
    share = foretold.pop("negative_share")
    assert 0 <= share <= 1
    assert foretold.keys() == measured.keys()
    # The plain head's weights have a deviation of 0.01, so its outputs are nearly its biases.
    classes = {k: v for k, v in foretold.items() if not k.startswith("loss_box")}
    for key, value in classes.items():
        assert measured[key] == pytest.approx(value, rel=0.05, abs=1e-4), key


def test_gradient_is_shared_between_background_and_objects() -> None:
    predictions = predict(torch.zeros(1, 3, 2))
    matches = match(predictions, [[0, BACKGROUND, IGNORE]])
    gradient = torch.tensor([[[-3.0, 1.0], [0.5, 1.5], [0.0, 0.0]]])
    parts = gradient_parts(gradient, matches)
    assert {k: v.item() for k, v in parts.items()} == {"negative": 2.0, "every": 6.0}


def test_the_line_names_both_numbers_and_the_share() -> None:
    line = describe({"loss_class": 1.19, "negative_share": 0.404}, {"loss_class": 1.2})
    assert line == (
        "first step: class 1.19 foretold, 1.2 measured; background has 40.4% of the class gradient"
    )
