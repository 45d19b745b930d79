"""What the sums of a loss are divided by and multiplied with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detector.box_losses import BoxLoss
from detector.config import Config, from_plain
from detector.config.registry import DATASETS, LOSSES
from detector.criterion import Criterion
from detector.criterion.weighting import (
    Weighting,
    build_weighting,
    effective_number_weights,
    moving_average,
)
from detector.data.annotations import Annotations
from detector.errors import ConfigError
from detector.layouts import Sigmoid
from detector.losses.base import ClassLoss
from detector.structures import BACKGROUND, IGNORE, Matches, Predictions
from tests.by_hand import match, predict
from tests.training.tiny import tiny

LABELS = [[0, 1, BACKGROUND, IGNORE], [BACKGROUND] * 3 + [1], [BACKGROUND] * 4]
"""2, 1 and 0 positives."""


class One(ClassLoss):
    """1 at every anchor and class."""

    layout_class = Sigmoid

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        return {"class": torch.ones_like(predictions.logits)}


class Two(BoxLoss):
    """2 at every positive."""

    def forward(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        return {"box": 2.0 * matches.foreground.double()}


def weighting(normalizer: Any = "positives", **changes: Any) -> Weighting:
    values = {
        "class_normalizer": normalizer,
        "box_normalizer": normalizer,
        "class_weights": None,
        "guided_scale": False,
        "batch_size": 3,
    }
    return Weighting(**(values | changes))


def terms(w: Weighting, **weights: float) -> dict[str, float]:
    predictions = predict(torch.zeros(3, 4, 2, dtype=torch.float64))
    matches = match(predictions, LABELS)
    positives = matches.foreground.sum().double() * w.world_size
    factors = {"loss": 1.0, "box_loss": 1.0} | weights
    class_terms, box_terms = (part(predictions, matches) for part in (One(2), Two()))
    values = w(class_terms, box_terms, factors, matches, positives)
    return {name: value.item() for name, value in values.items()}


# 3 images x 4 anchors x 2 classes = 24 ones; 2 x 3 positives = 6.
@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [
        ("positives", (24 / 3, 6 / 3)),
        ("images", (24 / 3, 6 / 3)),
        ("image_positives", ((8 / 2 + 8 / 1 + 8 / 1) / 3, (4 / 2 + 2 / 1) / 3)),
        ("ema_positives", (24 / (0.9 * 100 + 0.1 * 3), 6 / (0.9 * 100 + 0.1 * 3))),
    ],
)
def test_each_normaliser_divides_as_its_formula_says(
    normalizer: str, expected: tuple[float, float]
) -> None:
    found = terms(weighting(normalizer))
    assert found == pytest.approx({"loss_class": expected[0], "loss_box": expected[1]}, abs=1e-12)


def test_images_counts_the_images_of_the_whole_step() -> None:
    assert terms(weighting("images", batch_size=12))["loss_class"] == pytest.approx(24 / 12)


def test_a_rank_divides_by_its_share_since_gradients_are_averaged() -> None:
    two = weighting(world_size=2)  # which have the same batch, so 6 positives
    assert terms(two)["loss_class"] == pytest.approx(24 / (6 / 2))


def test_no_positives_divide_by_1() -> None:
    predictions = predict(torch.zeros(1, 4, 2, dtype=torch.float64))
    matches = match(predictions, [[BACKGROUND] * 4])
    for name in ("positives", "image_positives"):
        w = weighting(name, batch_size=1)
        positives = torch.zeros((), dtype=torch.float64)
        assert w.divisor(w.class_normalizer, matches, positives).sum() == 1
    hundred = torch.tensor(100.0, dtype=torch.float64)
    assert moving_average(hundred, torch.zeros(())).item() == pytest.approx(90.1)


def test_weights_multiply_their_own_terms() -> None:
    found = terms(weighting(), loss=3.0, box_loss=0.5)
    assert found == pytest.approx({"loss_class": 3 * 8, "loss_box": 0.5 * 2})


def test_class_weights_multiply_all_outputs_of_an_anchor_of_the_class() -> None:
    w = weighting("images", class_weights=torch.tensor([1.0, 10.0, 100.0]))
    # Background and neutral anchors 1; one anchor of class 0, two of class 1; two outputs each.
    assert terms(w)["loss_class"] == pytest.approx((2 * 9 + 2 * 10 + 2 * 2 * 100) / 3)
    assert terms(w)["loss_box"] == terms(weighting("images"))["loss_box"]


def three_levels() -> Matches:
    """The anchors of `LABELS` on levels of 1, 1 and 2: 1, 1 and 1 positives."""
    predictions = predict(torch.zeros(3, 4, 2, dtype=torch.float64))
    matches = match(predictions, LABELS)
    return replace(matches, anchors=replace(matches.anchors, level_sizes=(1, 1, 2)))


def test_levels_of_few_positives_count_up_to_double() -> None:
    w = weighting("images", level_weights="positives")
    matches = three_levels()
    assert w.level_factors(matches).tolist() == [1.0] * 4  # type: ignore[union-attr]
    statistics = w.statistics(matches)
    assert statistics["level_positives"][:4].tolist() == [1, 1, 1, 0]
    w.update({}, 3.0, statistics)
    w.update({}, 7.0, {"level_positives": torch.tensor([1.0, 5.0, 1.0] + [0.0] * 13)})
    # 2, 6 and 2 in all; another step gives the second 4 more and the third 3.
    w.update({}, 7.0, {"level_positives": torch.tensor([0.0, 4.0, 3.0] + [0.0] * 13)})
    # 2, 10, 5: doubled, once, and 2 - 3/8.
    assert w.level_factors(matches).tolist() == [2.0, 1.0, 1.625, 1.625]  # type: ignore[union-attr]
    class_terms = {"class": torch.ones(3, 4, 2, dtype=torch.float64)}
    box_terms = {"box": matches.foreground.double()}
    factors = {"loss": 1.0, "box_loss": 1.0}
    found = w(class_terms, box_terms, factors, matches, torch.tensor(3.0))
    assert found["loss_class"].item() == pytest.approx(2 * (2 + 1 + 2 * 1.625))
    assert found["loss_box"].item() == pytest.approx((2 + 1 + 1.625) / 3)


def test_level_weights_are_a_pure_function_of_what_is_saved() -> None:
    w, other = (weighting("images", level_weights="positives") for _ in range(2))
    w.update({}, 3.0, {"level_positives": torch.tensor([3.0, 9.0, 0.0] + [0.0] * 13)})
    other.load_state_dict(w.state_dict())
    factors = [x.level_factors(three_levels()) for x in (w, other)]
    assert torch.equal(*factors)  # type: ignore[arg-type]
    assert "level_positives" not in weighting().state_dict()


def test_the_criterion_counts_the_positives_of_each_level() -> None:
    criterion = Criterion.build(2, loss="ghm", level_weights=None)
    with pytest.raises(ConfigError, match="level_weights: positives given, but loss=ghm is no sum"):
        Criterion.build(2, loss="ghm", level_weights="positives")
    criterion = Criterion.build(2, loss="focal", level_weights="positives")
    matches = three_levels()
    predictions = predict(torch.zeros(3, 4, 2))
    criterion.update(criterion.statistics(predictions, matches), {}, 3.0)
    assert criterion.weighting.level_positives[:4].tolist() == [1, 1, 1, 0]


def test_the_guided_scale_brings_the_class_terms_to_the_box_terms_of_the_step_before() -> None:
    w = weighting(guided_scale=True)
    first = terms(w)
    assert first["loss_class"] == pytest.approx(8)
    w.update(first, positives=3.0)
    second = terms(w)
    assert second["loss_class"] == pytest.approx(second["loss_box"])
    w.update(second, positives=3.0)
    assert terms(w) == pytest.approx(second)  # the scale acts once, it does not compound
    w.update({"loss_class": 5.0, "loss_box": 0.0}, positives=0.0)
    assert terms(w) == pytest.approx(second)  # a step without objects changes nothing


def test_effective_numbers_follow_the_formula() -> None:
    counts, beta = np.array([1, 10, 0]), 0.9
    raw = [(1 - beta) / (1 - beta**n) for n in (1, 10, 1)]
    expected = [3 * w / sum(raw) for w in raw]
    np.testing.assert_allclose(effective_number_weights(counts, beta), expected, rtol=1e-12)
    np.testing.assert_allclose(effective_number_weights(counts, 0.0), 1.0)


def built(tmp_path: Path, **changes: Any) -> Weighting:
    config, annotations = setting(tmp_path, **changes)
    return build_weighting(config, LOSSES.build(config.loss, 4), annotations, 1)


def setting(tmp_path: Path, **changes: Any) -> tuple[Config, Annotations]:
    config = from_plain(tiny(tmp_path, **changes))
    return config, DATASETS.build(config.data).read("train").annotations


def test_a_config_chooses_the_normaliser_and_null_leaves_it_to_the_loss(tmp_path: Path) -> None:
    default = built(tmp_path)
    assert (default.class_normalizer, default.box_normalizer) == ("positives", "positives")
    chosen = built(tmp_path, normalizer="images")
    assert (chosen.class_normalizer, chosen.box_normalizer) == ("images", "images")
    own = built(tmp_path, loss={"name": "ohem", "weight": 1.0})
    assert (own.class_normalizer, own.box_normalizer) == ("images", "positives")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": {"name": "ohem"}, "normalizer": "positives"}, "normalizer: positives.*loss=ohem"),
        ({"class_weights": [1.0, 2.0]}, "class_weights: 2 given.*4 classes.*red circle"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        built(tmp_path, **changes)


def test_class_weights_by_frequency_and_their_power(tmp_path: Path) -> None:
    counts = np.bincount(setting(tmp_path)[1].labels, minlength=4)
    for power in (1.0, 0.5, 0.0):
        weights = built(
            tmp_path, class_weights="frequency", class_weights_power=power
        ).class_weights
        raw = [1 / max(n, 1) ** power for n in counts.tolist()]
        assert weights is not None
        assert weights.tolist() == pytest.approx([1, *(4 * r / sum(raw) for r in raw)], rel=1e-6)
    given = built(tmp_path, class_weights=[1.0, 4.0, 9.0, 0.0], class_weights_power=0.5)
    assert given.class_weights is not None
    assert given.class_weights.tolist() == [1, 1, 2, 3, 0]  # as given, and not scaled


def test_effective_number_weights_are_those_of_the_training_objects(tmp_path: Path) -> None:
    weights = built(tmp_path, class_weights="effective_number").class_weights
    counts = np.bincount(setting(tmp_path)[1].labels, minlength=4)
    assert weights is not None
    assert weights[0] == 1
    expected = effective_number_weights(counts, 0.999)
    np.testing.assert_allclose(weights[1:], expected, rtol=1e-6)  # float32
