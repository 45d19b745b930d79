"""Layouts against numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from detector.layouts import Layout, Objectness, Sigmoid, Softmax

LAYOUTS = (Sigmoid, Softmax, Objectness)


@pytest.mark.parametrize(
    ("prior", "bias"),
    [(0.5, 0.0), (0.1, -2.1972), (0.01, -4.5951), (0.001, -6.9068), (1e-5, -11.5129)],
)
def test_a_sigmoid_begins_at_the_log_odds_of_the_prior(prior: float, bias: float) -> None:
    # The golden values are given to four decimals.
    torch.testing.assert_close(
        Sigmoid(3).initial_bias(prior), torch.full((3,), bias), rtol=0, atol=5e-5
    )


def test_a_softmax_begins_with_its_background_high() -> None:
    bias = Softmax(80).initial_bias(0.01)
    assert bias[0].item() == pytest.approx(8.9771, abs=5e-5)  # log(80 * 99)
    assert not bias[1:].any()


def test_an_objectness_begins_low_and_its_classes_even() -> None:
    bias = Objectness(5).initial_bias(0.01)
    assert bias[0].item() == pytest.approx(-4.5951, abs=5e-5)
    assert bias[1:].tolist() == pytest.approx([-math.log(4)] * 5)
    assert Objectness(1).initial_bias(0.5).tolist() == [0, 0]


@pytest.mark.parametrize(("layout", "width"), [(Sigmoid, 4), (Softmax, 5), (Objectness, 5)])
def test_the_number_of_outputs(layout: type[Layout], width: int) -> None:
    assert layout(4).num_outputs == width


def test_scores_by_hand() -> None:
    log = math.log
    sigmoid = Sigmoid(2).scores(torch.tensor([log(3), -log(3)]))
    assert sigmoid.tolist() == pytest.approx([0.75, 0.25])
    softmax = Softmax(2).scores(torch.tensor([log(6), log(3), 0.0]))
    assert softmax.tolist() == pytest.approx([0.3, 0.1])
    objectness = Objectness(2).scores(torch.tensor([0.0, log(3), -log(3)]))
    assert objectness.tolist() == pytest.approx([0.375, 0.125])


def test_foreground_by_hand() -> None:
    logits = torch.tensor([math.log(6), math.log(3), 0.0])
    assert Softmax(2).foreground(logits).tolist() == pytest.approx([0.4])
    assert Objectness(2).foreground(logits).tolist() == pytest.approx([6 / 7])


def test_a_small_foreground_of_a_softmax_does_not_cancel() -> None:
    logits = torch.tensor([30.0, 0.0, 0.0])
    wanted = 2 * math.exp(-30)
    assert Softmax(2).foreground(logits).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_is_promoted_and_float64_kept(layout: type[Layout]) -> None:
    part = layout(3)
    logits = torch.zeros(2, part.num_outputs)
    for given, wanted in (
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert part.scores(logits.to(given)).dtype == wanted
        assert part.foreground(logits.to(given)).dtype == wanted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_classes_is_an_error(layout: type[Layout]) -> None:
    with pytest.raises(ValueError, match="num_classes=0"):
        layout(0)
