"""A RetinaNet of torchvision's and ours with its weights, and what both find on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNet

from detector.config.registry import AUGMENTATIONS
from detector.config.schema import Plug
from detector.convert.coco import CATEGORY_IDS
from detector.convert.sources import SOURCES, to_ours
from detector.data.loader import collate
from detector.data.transforms import without_objects
from detector.models.detector import Detector
from detector.structures import Batch, DetectionTensors
from tests.convert.foreign import empty, make_torchvision, scale_outputs

SIZES = ((96, 128), (101, 147), (150, 83), (64, 211))
"""(height, width) of images; the last is so long that max_size decides."""

LIMITS = {"min_size": 96, "max_size": 224}
TIE = 1e-5
"""Scores nearer to one another may change places: pixels are interpolated in float32."""


@dataclass
class Pair:
    """Theirs and ours, with the images as both have them.

    Both calculate in float64, weights are of float32: what processors round differently in float32
    would otherwise decide which of two nearly equal boxes is suppressed.
    """

    theirs: RetinaNet
    ours: Detector
    plain: dict[str, Any]
    images: list[NDArray[np.uint8]]

    def batch(self) -> Batch:
        augment = AUGMENTATIONS.build(
            Plug("albumentations", {k: v for k, v in self.plain["augment"].items() if k != "name"})
        )
        items = [(augment.evaluate(without_objects(x)), i, 0) for i, x in enumerate(self.images, 1)]
        return collate(items)[0]


def photograph(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Noise of several scales, so that each level of the pyramid sees something."""
    draws = np.random.default_rng(seed)
    parts = [
        cv2.resize(draws.uniform(0, 255, (n, n, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        for n in (3, 9, 27)
    ]
    return np.clip(np.mean(parts, axis=0) * 2 - 128, 0, 255).astype(np.uint8)


def as_theirs(image: NDArray[np.uint8]) -> Tensor:
    """(3, H, W) in [0, 1], float64."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1).double() / 255


def make_pair(source: Any, images: list[NDArray[np.uint8]], limits: dict[str, int]) -> Pair:
    theirs = make_torchvision(source, **limits)
    scale_outputs(theirs, [as_theirs(x).float() for x in images])
    ours, plain = empty(source)
    plain["augment"] |= limits
    state = to_ours(SOURCES[source], theirs.state_dict(), ours.state_dict(), "theirs")
    ours.load_state_dict(state)
    return Pair(theirs.double(), ours.double().eval(), plain, images)


def found_by_theirs(pair: Pair) -> list[DetectionTensors]:
    """Each image for itself, with our numbers of classes.

    Outputs of ids that COCO does not use go: nobody has trained them, and ours has none.
    """
    head: Any = pair.theirs.head
    layer = head.classification_head.cls_logits
    unused = torch.ones(9, 91, dtype=torch.bool)
    unused[:, list(CATEGORY_IDS)] = False
    found = []
    with torch.no_grad():
        layer.weight[unused.flatten()] = 0
        layer.bias[unused.flatten()] = -20
        for image in pair.images:
            row = pair.theirs([as_theirs(image)])[0]
            labels = torch.tensor([CATEGORY_IDS.index(k) for k in row["labels"].tolist()])
            found.append(DetectionTensors(row["boxes"], row["scores"], labels))
    return found


def assert_same(ours: DetectionTensors, theirs: DetectionTensors) -> None:
    """Equal but for the order of scores that are tied, and for which of those is cut off."""
    assert len(ours.scores) == len(theirs.scores)
    # Sigmoids of logits that agree to 1e-4.
    scores = (ours.scores.double(), theirs.scores.double())
    torch.testing.assert_close(*scores, rtol=0, atol=1e-4)
    start, num = 0, len(ours.scores)
    while start < num:
        stop = start + 1
        while stop < num and theirs.scores[stop - 1] - theirs.scores[stop] < TIE:
            stop += 1
        if stop < num or num < 300:
            a, b = (_in_fixed_order(d, start, stop) for d in (ours, theirs))
            assert torch.equal(a[:, 0], b[:, 0]), f"labels of detections {start} to {stop}"
            torch.testing.assert_close(a[:, 1:], b[:, 1:], rtol=0, atol=1e-3)
        start = stop


def _in_fixed_order(found: DetectionTensors, start: int, stop: int) -> Tensor:
    """(n, 5) rows of label and box."""
    rows = torch.cat([found.labels[:, None].double(), found.boxes.double()], 1)[start:stop]
    return torch.stack(sorted(rows, key=lambda row: [round(float(x), 1) for x in row]))
