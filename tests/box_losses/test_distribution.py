"""Boxes as distributions: what is read from them, what any box loss makes of them, and DFL."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detector.box_losses.distribution import distribution_focal, distribution_term
from detector.config.model import CoderConfig
from detector.config.registry import BOX_LOSSES
from detector.config.schema import Plug
from detector.criterion import Criterion
from detector.errors import ConfigError
from detector.layouts import Deltas, Distribution, Sigmoid
from detector.models.coder import SideCoder, build_coder
from detector.runs.checkpoint import load
from detector.structures import Matches, Predictions
from tests.by_hand import gradient
from tests.synthetic import make_anchors, make_matches, make_predictions, make_targets
from tests.training.tiny import go, losses, tiny

LAYOUT = Distribution(17, 2.0)


def loop_mean(outputs: list[float], reach: float) -> float:
    powers = [math.exp(x) for x in outputs]
    values = [i * reach / (len(outputs) - 1) for i in range(len(outputs))]
    return sum(p * v for p, v in zip(powers, values, strict=True)) / sum(powers)


def loop_dfl(outputs: list[float], place: float) -> float:
    """Equation 6 of the paper, of a place in bins."""
    low = min(max(math.floor(place), 0), len(outputs) - 2)
    place = min(max(place, 0.0), len(outputs) - 1)
    total = math.log(sum(math.exp(x) for x in outputs))
    below, above = (outputs[low + i] - total for i in (0, 1))
    return -((low + 1 - place) * below + (place - low) * above)


def random_outputs(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_a_number_is_the_mean_of_its_distribution() -> None:
    layout = Distribution(5, 3.0)
    outputs = random_outputs(7, 4 * 5)
    for row, numbers in zip(outputs.tolist(), layout.numbers(outputs).tolist(), strict=True):
        expected = [loop_mean(row[5 * i : 5 * i + 5], 3.0) for i in range(4)]
        assert numbers == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("bins", "reach"), [(17, 2.0), (2, 0.6), (9, 1.0), (33, 8.0)])
def test_at_the_initial_bias_an_anchor_says_its_own_box(bins: int, reach: float) -> None:
    layout = Distribution(bins, reach)
    bias = layout.initial_bias()
    assert bias.shape == (layout.num_outputs,)
    # A bias of float32.
    torch.testing.assert_close(layout.numbers(bias), torch.full((4,), 0.5), rtol=1e-5, atol=0)
    anchors = make_anchors().boxes
    boxes = SideCoder(layout).decode(layout.numbers(bias).expand(60, 4), anchors)
    torch.testing.assert_close(boxes, anchors, rtol=0, atol=1e-3)
    assert Deltas().initial_bias().tolist() == [0.0] * 4


def test_the_coder_counts_distances_in_sides_of_the_anchor() -> None:
    coder = SideCoder(LAYOUT)
    anchor, box = torch.tensor([10.0, 20.0, 30.0, 30.0]), torch.tensor([15.0, 5.0, 60.0, 26.0])
    # Centre (20, 25), sides 20 and 10: 5 / 20, 20 / 10, 40 / 20, 1 / 10.
    numbers = coder.encode(box, anchor)
    assert numbers.tolist() == pytest.approx([0.25, 2.0, 2.0, 0.1])
    torch.testing.assert_close(coder.decode(numbers, anchor), box)


@pytest.mark.parametrize("place", [0.0, 0.3, 1.0, 2.75, 4.0, 5.5, -1.0])
def test_the_term_is_equation_6(place: float) -> None:
    """Beyond the last bin the last is asked for, below the first the first."""
    layout = Distribution(5, 2.0)
    outputs = random_outputs(4 * 5)
    numbers = torch.full((4,), place * 2.0 / 4, dtype=torch.float64)
    found = distribution_focal(outputs, numbers, layout).item()
    expected = [loop_dfl(outputs[5 * i : 5 * i + 5].tolist(), place) for i in range(4)]
    assert found == pytest.approx(sum(expected) / 4, rel=1e-12)


def test_it_is_least_where_the_two_nearest_bins_have_the_weights_of_the_number() -> None:
    layout = Distribution(5, 4.0)
    shares = torch.tensor([1e-12, 0.7, 0.3, 1e-12, 1e-12], dtype=torch.float64)
    outputs = shares.log().repeat(4).requires_grad_()
    loss = distribution_focal(outputs, torch.full((4,), 1.3, dtype=torch.float64), layout)
    assert gradient(loss, outputs).abs().max() < 1e-9
    assert layout.numbers(outputs).tolist() == pytest.approx([1.3] * 4, rel=1e-9)


def scattered() -> tuple[Predictions, Matches]:
    anchors = make_anchors(dtype=torch.float64)
    targets = make_targets([3, 0, 5], 2)
    targets = replace(targets, boxes=targets.boxes.double())
    plain = make_predictions(Sigmoid(2), anchors, 3, dtype=torch.float64)
    bias = LAYOUT.initial_bias().double()
    outputs = (bias + 0.3 * random_outputs(3, 60, LAYOUT.num_outputs)).requires_grad_()
    predictions = Predictions(plain.logits, outputs, anchors, SideCoder(LAYOUT))
    return predictions, make_matches(anchors, targets)


@pytest.mark.parametrize("name", BOX_LOSSES.names)
def test_any_box_loss_works_on_distributions(name: str) -> None:
    """It falls along its gradient, which positives alone have."""
    predictions, matches = scattered()
    loss = BOX_LOSSES.build(Plug(name, {}))

    def value(outputs: Tensor) -> Tensor:
        shown = replace(predictions, deltas=outputs)
        return torch.stack([term.sum() for term in loss(shown, matches).values()]).sum()

    before = value(predictions.deltas)
    slope = gradient(before, predictions.deltas)
    assert not slope[~matches.foreground].any()
    assert bool(slope[matches.foreground].any())
    step = 1e-3 / slope.abs().max()
    assert value(predictions.deltas.detach() - step * slope) < before


def test_the_criterion_adds_the_term_where_boxes_are_distributions() -> None:
    predictions, matches = scattered()
    criterion = Criterion.build(2, box_loss="giou", distribution_weight=0.5)
    terms = criterion(predictions, matches, torch.tensor(4.0))
    own = distribution_term(predictions, matches)
    assert own is not None
    assert not own[~matches.foreground].any()
    assert terms["loss_box_distribution"].item() == pytest.approx(0.5 * own.sum().item() / 4)
    plain = make_predictions(Sigmoid(2), predictions.anchors, 3, dtype=torch.float64)
    assert set(criterion(plain, matches, torch.tensor(4.0))) == {"loss_class", "loss_box"}


def test_a_run_trains_on_distributions(tmp_path: Path) -> None:
    model = {**tiny(tmp_path)["model"], "coder": {"layout": "distribution", "bins": 9}}
    folder = go(tiny(tmp_path / "run", model=model, box_loss={"name": "giou", "weight": 2.0}))
    assert len(losses(folder)) == 6
    weight = load(folder / "checkpoints" / "last.pt")["model"]["head.box_outputs.weight"]
    assert weight.shape[0] == 9 * 4 * 9  # anchors of a cell, sides, bins


@pytest.mark.parametrize(("option", "value"), [("bins", 1), ("reach", 0.5)])
def test_a_distribution_that_says_nothing_is_refused(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{option}: {value} given"):
        CoderConfig(layout="distribution", **{option: value})  # type: ignore[arg-type]
    assert isinstance(build_coder(CoderConfig(layout="distribution")), SideCoder)
