"""What a loss says of one anchor, asked of it: closed forms, and what has to be said beside."""

from __future__ import annotations

import math

import pytest
import torch

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.plots.losses.curves import Probe, depends_on_iou, same, subject

X = torch.linspace(-6, 6, 7, dtype=torch.float64)

CROSS_ENTROPIES = [
    "cross_entropy",
    "ghm",
    "ohem",
    "random_sampling",
    "softmax_cross_entropy",
    "ssd",
    "yolo_objectness",
]
"""For one class, an anchor that counts and a share of 1 in the histogram."""


def ask(name: str, truth: bool = True, **options: object) -> Probe:
    one = subject(Plug(name, dict(options)))
    probe = one.yes if truth else one.no
    assert probe is not None
    return probe


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
@pytest.mark.parametrize("truth", [True, False])
def test_mining_and_softmax_of_two_are_cross_entropy_of_one_anchor(name: str, truth: bool) -> None:
    curve = ask(name, truth)(X)
    for i, x in enumerate(X.tolist()):
        z = x if truth else -x
        p_t = 1 / (1 + math.exp(-z))
        assert curve.p_t[i].item() == pytest.approx(p_t, rel=1e-9)
        assert curve.loss[i].item() == pytest.approx(-math.log(p_t), rel=1e-9)
        slope = (p_t - 1) if truth else (1 - p_t)
        assert curve.slope[i].item() == pytest.approx(slope, rel=1e-9)


@pytest.mark.parametrize(("truth", "alpha_t"), [(True, 0.25), (False, 0.75)])
def test_focal_has_its_formula_and_slope(truth: bool, alpha_t: float) -> None:
    curve = ask("focal", truth)(X)
    for i, p in enumerate(curve.p_t.tolist()):
        assert curve.loss[i].item() == pytest.approx(-alpha_t * (1 - p) ** 2 * math.log(p))
        slope = alpha_t * (1 - p) ** 2 * (2 * p * math.log(p) + p - 1)
        assert curve.slope[i].item() == pytest.approx(slope if truth else -slope)


def test_yolo_is_the_square_of_the_confidence_without_the_class() -> None:
    curve = ask("yolo")(X)
    assert curve.loss.tolist() == pytest.approx([(1 - p) ** 2 for p in curve.p_t.tolist()])


def test_a_box_that_fits_less_moves_the_target_of_losses_of_quality() -> None:
    for name in ("quality_focal", "yolo"):
        probe = ask(name)
        assert depends_on_iou(probe)
        at_target = probe(torch.tensor([math.log(0.7 / 0.3)]), iou=0.7)
        assert at_target.loss.item() == pytest.approx(0, abs=1e-12)
    assert not depends_on_iou(ask("focal"))


def test_a_negative_of_ssd_is_asked_beside_a_positive_and_this_is_said() -> None:
    one = subject(Plug("ssd", {}))
    assert one.no is not None
    assert one.no.companion == "positive"
    assert one.notes == ("y = 0 is drawn beside a positive, without which it does not count",)


def test_what_never_counts_has_no_curve_and_this_is_said() -> None:
    one = subject(Plug("ssd", {"negatives_per_positive": 0.0}))
    assert one.yes is not None
    assert one.no is None
    assert one.notes == ("no curve for y = 0: a single anchor never counts",)


@pytest.mark.parametrize("name", [n for n in LOSSES.names if not LOSSES.get(n).separable])
def test_of_a_loss_that_is_no_sum_over_anchors_this_is_said(name: str) -> None:
    one = subject(Plug(name, {}))
    words = "among others the curve differs"
    assert any(note.endswith(words) for note in one.notes)


@pytest.mark.parametrize("name", LOSSES.names)
def test_every_registered_loss_has_both_curves_finite(name: str) -> None:
    one = subject(Plug(name, {}))
    for probe in (one.yes, one.no):
        assert probe is not None
        curve = probe(X)
        assert torch.isfinite(curve.loss).all()
        assert torch.isfinite(curve.slope).all()
        assert curve.slope.any()


def test_equal_losses_are_found_and_others_are_not() -> None:
    plain = subject(Plug("cross_entropy", {}))
    assert same(plain, subject(Plug("focal", {"alpha": None, "gamma": 0.0})))
    assert not same(plain, subject(Plug("focal", {"alpha": None, "gamma": 0.01})))
    assert not same(plain, subject(Plug("ssd", {"negatives_per_positive": 0.0})))


def test_options_are_in_the_label() -> None:
    label = subject(Plug("focal", {"alpha": None, "gamma": 0.5})).label
    assert label == "focal, \u03b1\u00a0=\u00a0none, \u03b3\u00a0=\u00a00.5"


def test_terms_with_logits_of_their_own_are_left_out_and_this_is_said() -> None:
    # The class of a positive: at its logit 0, (1 - 0.5)^2 whatever the confidence.
    assert subject(Plug("yolo", {})).notes == (
        "y = 1 is drawn without class, which has logits of its own",
    )


def test_a_wrong_option_is_answered() -> None:
    with pytest.raises(ConfigError, match=r"loss\.gama: unknown key"):
        subject(Plug("focal", {"gama": 1.0}))
