"""What numpy makes of the outputs of a graph is what torch makes of those of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from detector.config.model import AnchorConfig, CoderConfig, PostprocessConfig
from detector.errors import ConfigError, DivergedError
from detector.inference import outputs
from detector.layouts import Objectness, Sigmoid, Softmax
from detector.models.anchors import AnchorGenerator
from detector.models.coder import build_coder
from detector.models.postprocess import postprocess
from detector.structures import Anchors, Batch, Predictions

SIZES = [(32, 32), (64, 96), (256, 160), (800, 1344)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "config",
    [
        AnchorConfig(),
        AnchorConfig(size=2.0, scales=(1.0,), ratios=(1.0,), offset=0.0),
        AnchorConfig(round_to_pixels=True, offset=0.0),
    ],
)
def test_anchors_are_those_of_the_model_to_the_bit(
    config: AnchorConfig, size: tuple[int, int]
) -> None:
    theirs = AnchorGenerator(config).for_image(*size)
    ours, level_sizes = outputs.anchors_of(config, *size)
    assert np.array_equal(ours, theirs.boxes.numpy())
    assert tuple(level_sizes) == theirs.level_sizes


def test_anchors_that_depend_on_more_than_the_map_are_refused() -> None:
    with pytest.raises(ConfigError, match="stride_mode: image given"):
        outputs.anchors_of(AnchorConfig(stride_mode="image"), 64, 64)


@pytest.mark.parametrize("layout", [Sigmoid(3), Softmax(3), Objectness(3), Softmax(1)])
def test_scores_are_those_of_the_layout(layout: Any) -> None:
    """Up to the last digits of float32: exp is another function of another library."""
    torch.manual_seed(0)
    logits = 8 * torch.randn(50, layout.num_outputs)
    logits[0] = 200
    logits[1] = -200
    ours = outputs.scores_of(type(layout).__name__, logits.numpy())
    np.testing.assert_allclose(ours, layout.scores(logits).numpy(), rtol=2e-6, atol=1e-30)


def test_another_layout_is_refused() -> None:
    with pytest.raises(ConfigError, match="layout: 'Margin' is not one of Sigmoid, Softmax"):
        outputs.scores_of("Margin", np.zeros((1, 2), np.float32))


@pytest.mark.parametrize(
    "config",
    [
        CoderConfig(),
        CoderConfig(weights=(10.0, 10.0, 5.0, 5.0), clamp="both"),
    ],
)
def test_boxes_are_those_of_the_coder(config: CoderConfig) -> None:
    torch.manual_seed(0)
    anchors = AnchorGenerator(AnchorConfig()).for_image(64, 64).boxes
    deltas = 3 * torch.randn(len(anchors), 4)
    theirs = build_coder(config).decode(deltas, anchors).numpy()
    ours = outputs.decode(config, deltas.numpy(), anchors.numpy())
    # Differences of two corners far away: a few digits of float32.
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        PostprocessConfig(),
        PostprocessConfig(score_threshold=0.4, detections_per_image=7),
        PostprocessConfig(topk_per_level=11, nms_iou=0.3),
        PostprocessConfig(topk_of="anchors", topk_per_level=20),
        PostprocessConfig(clip="after_nms"),
        PostprocessConfig(clip="after_nms", drop_empty=False),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_detections_are_those_of_the_model(config: PostprocessConfig, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = AnchorGenerator(AnchorConfig()).for_image(64, 96)
    count = len(anchors.boxes)
    logits = 2 * torch.randn(1, count, 3, generator=generator)
    deltas = 0.3 * torch.randn(1, count, 4, generator=generator)
    batch = Batch(torch.zeros(1, 3, 64, 96), torch.tensor([[50, 90]]), torch.ones(1, 2), (1,))
    predictions = Predictions(logits, deltas, anchors, build_coder(CoderConfig()))
    (theirs,) = postprocess(predictions, Sigmoid(3), batch, config)
    # The scores of torch: what is compared is what is made of them, ties and all.
    scores = Sigmoid(3).scores(logits)[0].numpy()
    boxes, values, labels = outputs.detections_of(
        scores, deltas[0].numpy(), anchors.boxes.numpy(), anchors.level_sizes, (50, 90),
        CoderConfig(), config,
    )  # fmt: skip
    assert len(values) == len(theirs.scores) > 5
    assert np.array_equal(values, theirs.scores.numpy())
    assert np.array_equal(labels, theirs.labels.numpy())
    np.testing.assert_allclose(boxes, theirs.boxes.numpy(), rtol=1e-5, atol=1e-3)


def test_nothing_above_the_threshold_is_no_detection() -> None:
    anchors = Anchors(torch.tensor([[0.0, 0, 8, 8]]), torch.ones(1), (1,))
    config = replace(PostprocessConfig(), score_threshold=0.9)
    boxes, values, labels = outputs.detections_of(
        np.full((1, 2), 0.5, np.float32), np.zeros((1, 4), np.float32), anchors.boxes.numpy(),
        (1,), (8, 8), CoderConfig(), config,
    )  # fmt: skip
    assert boxes.shape == (0, 4)
    assert (len(values), len(labels)) == (0, 0)


def test_a_score_that_is_no_number_is_an_error() -> None:
    with pytest.raises(DivergedError, match="not finite"):
        outputs.detections_of(
            np.full((1, 1), np.nan, np.float32), np.zeros((1, 4), np.float32),
            np.array([[0, 0, 8, 8]], np.float32), (1,), (8, 8), CoderConfig(), PostprocessConfig(),
        )  # fmt: skip
