"""Training losses against torchvision's own, on the same outputs: its matcher, its normaliser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead

from detector.config import from_plain
from detector.convert.coco import CATEGORY_IDS
from detector.criterion import Criterion
from detector.models.anchors import AnchorGenerator
from detector.models.coder import BoxCoder
from detector.structures import Predictions, Targets
from tests.convert.foreign import ORDER, preset

HEIGHT, WIDTH = 128, 192
OBJECTS: list[list[tuple[float, ...]]] = [
    # Two that overlap, and one within them too small for any anchor: it forces its best one, which
    # overlaps a large object more and so counts for that.
    [(10, 20, 90, 100), (40, 30, 120, 110), (70, 60, 82, 70)],
    [],
    [(0, 0, 191, 127), (100.5, 7.25, 133, 60)],
]
LABELS = [[0, 79, 11], [], [3, 3]]
BOX_LOSS = {"torchvision_v1": "l1", "torchvision_v2": "giou"}
"""The loss of theirs, by version."""

VALUES = ("loss_class", "loss_box")


@dataclass
class Case:
    """The same outputs as ours and as theirs, float64; theirs with the outputs of unused ids."""

    logits: Tensor
    deltas: Tensor
    predictions: Predictions
    theirs: dict[str, Tensor]


def make_case() -> Case:
    config = from_plain(preset("torchvision_v1")).model
    anchors = AnchorGenerator(config.anchors).for_image(HEIGHT, WIDTH)
    num = len(anchors.boxes)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, num, 80, generator=generator, dtype=torch.float64) - 2
    deltas = torch.randn(3, num, 4, generator=generator, dtype=torch.float64) * 0.3
    logits.requires_grad_()
    deltas.requires_grad_()
    coder = BoxCoder(config.coder.weights, clamp=config.coder.clamp)
    # Outputs that nobody has trained: their loss is e^-120.
    with_unused = torch.full((3, num, 91), -60.0, dtype=torch.float64)
    with_unused[..., list(CATEGORY_IDS)] = logits
    theirs = {"cls_logits": in_their_order(with_unused), "bbox_regression": in_their_order(deltas)}
    return Case(logits, deltas, Predictions(logits, deltas, anchors, coder), theirs)


def in_their_order(rows: Tensor) -> Tensor:
    """(N, A, ...) with the ratio outside and the scale inside in each cell."""
    back = [ORDER.index(i) for i in range(9)]
    return rows.reshape(len(rows), -1, 9, rows.shape[-1])[:, :, back].reshape(rows.shape)


def their_losses(case: Case, version: str) -> dict[str, Tensor]:
    body: Any = nn.Identity()
    body.out_channels = 8
    head = RetinaNetHead(8, 9, 91)
    head.regression_head._loss_type = BOX_LOSS[version]
    model = RetinaNet(body, 91, head=head)
    boxes = case.predictions.anchors.boxes.double()[None]
    targets = [
        {
            "boxes": torch.tensor(rows, dtype=torch.float64).reshape(-1, 4),
            "labels": torch.tensor([CATEGORY_IDS[k] for k in labels], dtype=torch.int64),
        }
        for rows, labels in zip(OBJECTS, LABELS, strict=True)
    ]
    found = model.compute_loss(targets, case.theirs, [in_their_order(boxes)[0]] * 3)
    return {"loss_class": found["classification"], "loss_box": found["bbox_regression"]}


def our_losses(case: Case, version: str, force: str, normalizer: Any) -> dict[str, Tensor]:
    boxes, labels = torch.zeros(3, 3, 4), torch.full((3, 3), -1)
    for i, (rows, classes) in enumerate(zip(OBJECTS, LABELS, strict=True)):
        boxes[i, : len(rows)] = torch.tensor(rows).reshape(-1, 4)
        labels[i, : len(rows)] = torch.tensor(classes)
    targets = Targets(
        boxes=boxes,
        labels=labels,
        crowd=torch.zeros(3, 3, dtype=torch.bool),
        image_sizes=torch.tensor([[HEIGHT, WIDTH]] * 3),
        image_ids=(1, 2, 3),
        keys=torch.zeros(3, dtype=torch.int64),
    )
    criterion = Criterion.build(
        80,
        loss={"name": "focal", "alpha": 0.25, "gamma": 2.0},
        box_loss=BOX_LOSS[version],
        matcher={"name": "retinanet", "force": force},
        normalizer=normalizer,
        batch_size=3,
    )
    matches = criterion.match(case.predictions.anchors, targets)
    assert matches is not None
    return criterion(case.predictions, matches, criterion.positives([matches], [targets]))


@pytest.mark.parametrize("version", BOX_LOSS)
def test_losses_and_slopes_are_theirs(version: str) -> None:
    """With `matcher.force=anchor normalizer=image_positives` and their box loss."""
    case = make_case()
    theirs = their_losses(case, version)
    ours = our_losses(case, version, "anchor", "image_positives")
    for name in VALUES:
        assert float(theirs[name].detach()) > 0.1
        # float64 on both sides; boxes of objects and anchors are exact in float32.
        torch.testing.assert_close(ours[name].double(), theirs[name], rtol=1e-5, atol=0)
    for output in (case.logits, case.deltas):
        slopes = [
            torch.autograd.grad(found["loss_class"] + found["loss_box"], output, retain_graph=True)[
                0
            ]
            for found in (ours, theirs)
        ]
        assert float(slopes[1].abs().max()) > 1e-3
        torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("force", "normalizer"),
    [("object", "image_positives"), ("none", "image_positives"), ("anchor", "positives")],
)
def test_another_matcher_or_normaliser_is_seen(force: str, normalizer: str) -> None:
    case = make_case()
    theirs = their_losses(case, "torchvision_v1")
    ours = our_losses(case, "torchvision_v1", force, normalizer)
    distances = [abs(float((ours[name] / theirs[name]).detach()) - 1) for name in VALUES]
    assert max(distances) > 1e-3  # a hundred times what is allowed above
