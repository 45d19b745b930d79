"""What has to hold on a GPU as it does on a CPU; skipped where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detector.config.model import PostprocessConfig
from detector.config.registry import BOX_LOSSES, LOSSES, MATCHERS
from detector.config.schema import Plug
from detector.layouts import Sigmoid
from detector.models.postprocess import postprocess
from detector.structures import Batch, Matches, Predictions, to_device
from tests.synthetic import PlainCoder, make_anchors, make_matches, make_predictions, make_targets
from tests.training.tiny import go, losses, tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CUDA = torch.device("cuda")
COUNTS = [3, 0, 1, 5]


def moved(predictions: Predictions) -> Predictions:
    """The same on the GPU, as leaves."""
    logits, deltas = (
        x.detach().to(CUDA).requires_grad_() for x in (predictions.logits, predictions.deltas)
    )
    return Predictions(logits, deltas, to_device(predictions.anchors, CUDA), PlainCoder())


def moved_matches(matches: Matches, predictions: Predictions) -> Matches:
    here = to_device(matches, CUDA)
    return replace(here, anchors=predictions.anchors, targets=to_device(matches.targets, CUDA))


@pytest.mark.parametrize("name", LOSSES.names)
def test_a_class_loss_and_its_gradient_are_those_of_the_cpu(name: str) -> None:
    loss = LOSSES.build(Plug(name, {}), 5)
    anchors, targets = make_anchors(), make_targets(COUNTS, 5)
    matches = make_matches(anchors, targets)
    predictions = make_predictions(loss.layout, anchors, len(COUNTS))
    on_gpu = moved(predictions)
    expected = loss(predictions, matches)
    found = loss.to(CUDA)(on_gpu, moved_matches(matches, on_gpu))
    sum(t.sum() for t in expected.values()).backward()
    sum(t.sum() for t in found.values()).backward()
    # float32 of other instructions: a few units in the last place of each of 60 anchors.
    for key, value in expected.items():
        torch.testing.assert_close(found[key].cpu(), value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        on_gpu.logits.grad.cpu(), predictions.logits.grad, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", BOX_LOSSES.names)
def test_a_box_loss_is_that_of_the_cpu(name: str) -> None:
    loss = BOX_LOSSES.build(Plug(name, {}))
    anchors, targets = make_anchors(), make_targets(COUNTS, 5)
    matches = make_matches(anchors, targets)
    predictions = make_predictions(Sigmoid(5), anchors, len(COUNTS))
    on_gpu = moved(predictions)
    expected = loss(predictions, matches)
    found = loss.to(CUDA)(on_gpu, moved_matches(matches, on_gpu))
    for key, value in expected.items():
        torch.testing.assert_close(found[key].cpu(), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MATCHERS.names)
def test_a_matcher_chooses_as_on_the_cpu(name: str) -> None:
    matcher = MATCHERS.build(Plug(name, {}))
    anchors, targets = make_anchors(), make_targets(COUNTS, 5)
    predictions = make_predictions(Sigmoid(5), anchors, len(COUNTS))
    on_gpu = moved(predictions)
    expected = matcher(anchors, targets, predictions)
    found = matcher(on_gpu.anchors, to_device(targets, CUDA), on_gpu)
    assert torch.equal(found.labels.cpu(), expected.labels)
    assert torch.equal(found.objects.cpu(), expected.objects)


def test_detections_are_those_of_the_cpu() -> None:
    anchors = make_anchors()
    predictions = make_predictions(Sigmoid(5), anchors, 2)
    batch = Batch(
        torch.zeros(2, 3, 128, 128, dtype=torch.uint8),
        torch.full((2, 2), 128),
        torch.ones(2, 2),
        (1, 2),
    )
    with torch.no_grad():
        expected = postprocess(predictions, Sigmoid(5), batch, PostprocessConfig())
        found = postprocess(
            moved(predictions), Sigmoid(5), to_device(batch, CUDA), PostprocessConfig()
        )
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b.scores.cpu(), a.scores, rtol=1e-5, atol=1e-6)
        assert torch.equal(b.labels.cpu(), a.labels)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_run_goes_to_its_end_in_each_number_format(precision: str, tmp_path: Path) -> None:
    folder = go(tiny(tmp_path, device="cuda", precision=precision))
    assert all(torch.isfinite(torch.tensor(losses(folder))))
    assert (folder / "metrics.json").exists()


def test_the_first_steps_are_those_of_the_cpu(tmp_path: Path) -> None:
    cpu = losses(go(tiny(tmp_path / "cpu", steps=3)))
    gpu = losses(go(tiny(tmp_path / "gpu", steps=3, device="cuda")))
    # float32 with other summation orders, and AdamW divides by the gradient's own size.
    assert gpu == pytest.approx(cpu, rel=1e-2)
    assert gpu[0] == pytest.approx(cpu[0], rel=1e-4)
