"""Where public implementations of one loss disagree: what each does, and what is done here.

The others are written out here from their formulas, so that the reason stands beside the number.
"""

from __future__ import annotations

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from detector.losses.focal import sigmoid_focal
from detector.losses.focal_star import sigmoid_focal_star
from detector.losses.softmax_focal import softmax_focal
from tests.by_hand import gradient, random_logits

YES = torch.tensor([True])
NO = torch.tensor([False])


def leaf(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


class TestFocal:
    def test_without_options_torchvision_weighs_by_a_quarter_and_fvcore_not_at_all(self) -> None:
        """So alpha has to be stated: the same call differs by 4 on objects, 4/3 on background."""
        default = inspect.signature(sigmoid_focal_loss).parameters["alpha"].default
        fvcore_default = None  # -1 there
        logits, truth = torch.zeros(2), torch.tensor([True, False])
        torchvision = sigmoid_focal(logits, truth, alpha=default, gamma=2.0)
        fvcore = sigmoid_focal(logits, truth, alpha=fvcore_default, gamma=2.0)
        assert (fvcore / torchvision).tolist() == pytest.approx([4.0, 4 / 3])
        assert inspect.signature(sigmoid_focal).parameters["alpha"].default is inspect._empty

    @pytest.mark.parametrize("x", [40.0, 200.0])
    def test_a_power_of_1_less_p_has_no_slope_where_p_rounds_to_1(self, x: float) -> None:
        """torchvision and fvcore: infinity x 0 for gamma < 1. Here the power is an exp of a log."""
        logits = leaf(x, dtype=torch.float32)
        plain = F.binary_cross_entropy_with_logits(logits, torch.ones(1), reduction="none")
        theirs = plain * (1 - logits.sigmoid()) ** 0.5
        assert gradient(theirs.sum(), logits).isnan().all()
        ours = gradient(sigmoid_focal(logits, YES, alpha=None, gamma=0.5).sum(), logits)
        assert ours.abs().item() < 1e-8

    def test_torchvision_s_own_gradient_is_ours_wherever_it_is_a_number(self) -> None:
        logits, truth = random_logits(200).requires_grad_(), random_logits(200, seed=1) > 0
        theirs = sigmoid_focal_loss(logits, truth.double(), alpha=0.25, gamma=0.5)
        ours = sigmoid_focal(logits, truth, alpha=0.25, gamma=0.5)
        # Theirs subtracts p_t from 1.
        torch.testing.assert_close(
            gradient(ours.sum(), logits), gradient(theirs.sum(), logits), rtol=1e-6, atol=1e-9
        )

    def test_a_clamped_probability_stops_learning_where_it_is_most_wrong(self) -> None:
        """yhenon's RetinaNet clamps p to [1e-4, 1 - 1e-4]: beyond a logit of 9.2 nothing moves."""
        logits = leaf(-12.0)
        p = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
        theirs = -((1 - p) ** 2) * p.log()
        assert gradient(theirs.sum(), logits).item() == 0.0
        ours = sigmoid_focal(logits, YES, alpha=None, gamma=2.0)
        assert gradient(ours.sum(), logits).item() == pytest.approx(-1.0, abs=1e-3)

    def test_a_modulator_that_is_a_weight_has_the_value_and_another_slope(self) -> None:
        """D-FINE detaches it, the paper differentiates it: here the paper's is the default."""
        logits = leaf(0.0)
        options = {"alpha": None, "gamma": 2.0}
        paper = sigmoid_focal(logits, YES, **options)
        fixed = sigmoid_focal(logits, YES, **options, detach_modulator=True)
        assert paper.item() == fixed.item()
        # At p 1/2: (1/4) (2 x 1/2 x log(1/2) - 1/2) and (1/4) (-1/2).
        assert gradient(paper.sum(), logits).item() == pytest.approx((-math.log(2) - 0.5) / 4)
        assert gradient(fixed.sum(), logits).item() == pytest.approx(-0.5 / 4)

    def test_a_mean_over_anchors_is_no_sum(self) -> None:
        """Some take `.mean(1).sum()`: a thousandth for 1,000 anchors. Nothing is reduced here."""
        logits = random_logits(2, 1000, 3)
        loss = sigmoid_focal(logits, logits > 5, alpha=0.25, gamma=2.0)
        assert loss.shape == (2, 1000, 3)
        assert loss.sum().item() == pytest.approx(1000 * loss.mean(1).sum().item())


class TestSoftmaxFocal:
    def test_alpha_weighs_objects_and_the_rest_weighs_background(self) -> None:
        """As in Detectron. Others weigh every class by alpha, which is a factor on the loss."""
        logits = torch.zeros(3, 3, dtype=torch.float64)
        loss = softmax_focal(logits, torch.tensor([0, 1, 2]), alpha=0.25, gamma=2.0)
        one = (2 / 3) ** 2 * math.log(3)
        assert loss.tolist() == pytest.approx([0.75 * one, 0.25 * one, 0.25 * one], rel=1e-12)

    def test_1_less_p_as_a_difference_vanishes_and_as_a_sum_of_the_others_does_not(self) -> None:
        logits = torch.tensor([[20.0, 0.0, 0.0]])
        p = logits.softmax(-1)[0, 0]
        assert (1 - p).item() == 0.0
        fading = softmax_focal(logits, torch.tensor([1]), alpha=None, gamma=0.0)
        assert fading.item() == pytest.approx(20.0, rel=1e-6)
        logits.requires_grad_()
        loss = softmax_focal(logits, torch.tensor([0]), alpha=None, gamma=0.5)
        assert torch.isfinite(gradient(loss.sum(), logits)).all()


class TestFocalStar:
    def test_without_beta_the_paper_s_better_known_setting_cannot_be_had(self) -> None:
        """fvcore's has gamma alone: that is beta 0, so (4, 0) of the paper but not (2, 1)."""
        logits = random_logits(50)
        yes = torch.ones(50, dtype=torch.bool)
        fvcore = -F.logsigmoid(2.0 * logits) / 2.0
        ours = sigmoid_focal_star(logits, yes, alpha=None, gamma=2.0, beta=0.0)
        torch.testing.assert_close(ours, fvcore, rtol=1e-12, atol=0)
        shifted = sigmoid_focal_star(logits, yes, alpha=None, gamma=2.0, beta=1.0)
        assert bool((shifted < fvcore).all())


class TestPoly:
    @pytest.mark.parametrize(("is_weighted", "added"), [(False, 0.5**3), (True, 0.25 * 0.5**3)])
    def test_whether_alpha_weighs_the_added_term_is_open(
        self, is_weighted: bool, added: float
    ) -> None:
        """The paper has no alpha; abhuse/polyloss leaves the term unweighted: the default here."""
        options = {"alpha": 0.25, "gamma": 2.0}
        plain = sigmoid_focal(leaf(0.0), YES, **options)
        poly = sigmoid_focal(
            leaf(0.0), YES, **options, poly_epsilon=1.0, is_poly_weighted=is_weighted
        )
        assert (poly - plain).item() == pytest.approx(added, rel=1e-12)


class TestAsymmetric:
    def test_gamma_of_positives_is_0_in_the_paper_s_tables_and_1_in_its_code(self) -> None:
        options = {"alpha": None, "gamma_negative": 4.0, "clip": 0.05}
        paper = sigmoid_focal(leaf(0.0), YES, gamma=0.0, **options)
        code = sigmoid_focal(leaf(0.0), YES, gamma=1.0, **options)
        assert (paper.item(), code.item()) == pytest.approx((math.log(2), math.log(2) / 2))

    def test_a_log_cut_off_at_1e_8_stops_learning_where_it_is_most_wrong(self) -> None:
        """Their code clamps p there: a positive at a logit below -18.4 has no slope."""
        logits = leaf(-20.0)
        theirs = -logits.sigmoid().clamp(min=1e-8).log()
        assert gradient(theirs.sum(), logits).item() == 0.0
        ours = sigmoid_focal(logits, YES, alpha=None, gamma=0.0, gamma_negative=4.0, clip=0.05)
        assert gradient(ours.sum(), logits).item() == pytest.approx(-1.0, abs=1e-8)

    def test_it_was_made_for_scores_above_its_clip(self) -> None:
        """At the prior of a detector, 0.01 < 0.05, background has no slope at all."""
        logits = leaf(-math.log(99))
        options = {"alpha": None, "gamma": 0.0, "gamma_negative": 4.0}
        clipped = sigmoid_focal(logits, NO, **options, clip=0.05)
        assert gradient(clipped.sum(), logits).item() == 0.0
        assert gradient(sigmoid_focal(logits, NO, **options).sum(), logits).item() > 0
