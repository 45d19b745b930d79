"""What every registered class loss must hold; a new one is tested here without an edit."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.losses.base import ClassLoss
from detector.structures import IGNORE, Anchors, Matches, Predictions, Targets
from tests.synthetic import PlainCoder, make_anchors, make_matches, make_predictions, make_targets

COUNTS = [3, 0, 1, 5]


@pytest.fixture(params=LOSSES.names)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[1, 3, 80])
def num_classes(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def loss(name: str, num_classes: int) -> ClassLoss:
    return LOSSES.build(Plug(name, {}), num_classes)


def per_image(terms: dict[str, Tensor]) -> Tensor:
    """(N,) sums of all terms."""
    return sum((term.flatten(1).sum(1) if term.dim() > 1 else term) for term in terms.values())  # type: ignore[return-value]


def setting(loss: ClassLoss, counts: list[int], **options: object) -> tuple[Predictions, Matches]:
    dtype = options.get("dtype", torch.float32)
    anchors = make_anchors(dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    targets = make_targets(counts, loss.num_classes)
    matches = make_matches(anchors, targets)
    return make_predictions(loss.layout, anchors, len(counts), **options), matches  # type: ignore[arg-type]


def test_scores_are_probabilities_of_k_classes(loss: ClassLoss) -> None:
    predictions, _ = setting(loss, COUNTS, scale=20.0)
    scores = loss.layout.scores(predictions.logits)
    assert scores.shape == (*predictions.logits.shape[:2], loss.num_classes)
    assert bool(((scores >= 0) & (scores <= 1)).all())


@pytest.mark.parametrize("prior", [0.5, 0.1, 0.01, 1e-5])
def test_foreground_equals_the_prior_at_the_initial_bias(loss: ClassLoss, prior: float) -> None:
    bias = loss.layout.initial_bias(prior)
    assert bias.shape == (loss.layout.num_outputs,)
    foreground = loss.layout.foreground(bias)
    torch.testing.assert_close(foreground, torch.full_like(foreground, prior), rtol=1e-4, atol=0)


def test_terms_keep_the_images_apart_and_are_differentiable(loss: ClassLoss) -> None:
    predictions, matches = setting(loss, COUNTS)
    terms = loss(predictions, matches)
    n, a = matches.labels.shape
    for term in terms.values():
        assert tuple(term.shape) in {(n, a, loss.num_classes), (n, a), (n,)}
        assert term.dtype == torch.float32
    per_image(terms).sum().backward()
    assert predictions.logits.grad is not None
    assert predictions.logits.grad.abs().sum() > 0


@pytest.mark.parametrize("counts", [[0, 0], [0, 2]])
def test_an_image_without_objects_is_legal(loss: ClassLoss, counts: list[int]) -> None:
    predictions, matches = setting(loss, counts)
    total = per_image(loss(predictions, matches)).sum()
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(predictions.logits.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("magnitude", [40.0, 200.0])
def test_huge_logits_of_any_precision_stay_finite(
    loss: ClassLoss, dtype: torch.dtype, magnitude: float
) -> None:
    predictions, matches = setting(loss, COUNTS, dtype=dtype)
    logits = (predictions.logits.detach().sign() * magnitude).requires_grad_()
    predictions = Predictions(logits, predictions.deltas, predictions.anchors, PlainCoder())
    total = per_image(loss(predictions, matches)).sum()
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


def test_float64_stays_float64(loss: ClassLoss) -> None:
    predictions, matches = setting(loss, COUNTS, dtype=torch.float64)
    assert all(term.dtype == torch.float64 for term in loss(predictions, matches).values())


def test_neutral_anchors_change_nothing(loss: ClassLoss) -> None:
    predictions, matches = setting(loss, COUNTS)
    before = per_image(loss(predictions, matches))
    before.sum().backward()
    neutral = matches.labels == IGNORE
    assert neutral.any()
    assert predictions.logits.grad is not None
    assert not predictions.logits.grad[neutral].any()
    moved = torch.where(neutral[..., None], 7.0, predictions.logits.detach())
    changed = Predictions(moved, predictions.deltas, predictions.anchors, PlainCoder())
    assert torch.equal(per_image(loss(changed, matches)), before)


def test_the_order_of_anchors_does_not_matter(loss: ClassLoss) -> None:
    if not loss.separable:
        pytest.skip("not a sum over anchors")
    predictions, matches = setting(loss, COUNTS, dtype=torch.float64)
    order = torch.randperm(
        len(predictions.anchors.boxes), generator=torch.Generator().manual_seed(3)
    )
    anchors = Anchors(
        predictions.anchors.boxes[order], predictions.anchors.strides[order], (len(order),)
    )
    shuffled = Predictions(
        predictions.logits[:, order], predictions.deltas[:, order], anchors, PlainCoder()
    )
    moved = Matches(
        matches.labels[:, order],
        matches.boxes[:, order],
        matches.objects[:, order],
        anchors,
        matches.targets,
    )
    # Sums in another order: float64 rounding only.
    torch.testing.assert_close(
        per_image(loss(shuffled, moved)),
        per_image(loss(predictions, matches)),
        rtol=1e-12,
        atol=1e-12,
    )


def test_splitting_the_batch_changes_nothing(loss: ClassLoss) -> None:
    if not loss.separable:
        pytest.skip("not a sum over anchors")
    predictions, matches = setting(loss, COUNTS, dtype=torch.float64)
    whole = per_image(loss(predictions, matches))
    parts = [
        per_image(loss(*_rows(predictions, matches, rows))) for rows in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


def _rows(predictions: Predictions, matches: Matches, rows: slice) -> tuple[Predictions, Matches]:
    t = matches.targets
    targets = Targets(
        t.boxes[rows],
        t.labels[rows],
        t.crowd[rows],
        t.image_sizes[rows],
        t.image_ids[rows],
        t.keys[rows],
    )
    part = replace(
        matches,
        labels=matches.labels[rows],
        boxes=matches.boxes[rows],
        objects=matches.objects[rows],
        targets=targets,
    )
    anchors = predictions.anchors
    return (
        Predictions(predictions.logits[rows], predictions.deltas[rows], anchors, PlainCoder()),
        part,
    )


def test_an_option_that_is_a_number_is_an_attribute_of_its_name(name: str) -> None:
    """`ramps` set it between steps; a loss that had made something else of it would not notice.

    One that fixes a size, such as the bins of a buffer, is no attribute and cannot be ramped.
    """
    loss = LOSSES.build(Plug(name, {}), 3)
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(type(loss)).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for key, default in defaults.items():
        if isinstance(default, (int, float)) and not fixes_a_size(name, key, default):
            assert hasattr(loss, key), key
            assert getattr(loss, key) == default, key


def fixes_a_size(name: str, key: str, default: float) -> bool:
    """Whether a whole number decides how large a buffer of the loss is."""
    if isinstance(default, bool) or not isinstance(default, int):
        return False
    sizes = [
        [buffer.shape for buffer in LOSSES.build(Plug(name, {key: value}), 3).buffers()]
        for value in (default, default + 1)
    ]
    return sizes[0] != sizes[1]
