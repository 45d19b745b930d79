"""Converted weights against torchvision's own RetinaNets, on the same pixels."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detector.config import from_plain
from detector.convert.coco import CATEGORY_IDS
from detector.convert.convert import convert
from detector.convert.sources import SOURCES, to_ours
from detector.layouts import Sigmoid
from detector.models.norm import FrozenBatchNorm
from detector.models.postprocess import postprocess
from detector.runs import checkpoint
from detector.structures import Predictions
from tests.convert.foreign import ORDER, make_torchvision, preset, save_state
from tests.convert.pairs import (
    LIMITS,
    SIZES,
    Pair,
    as_theirs,
    assert_same,
    found_by_theirs,
    make_pair,
    photograph,
)


@pytest.fixture(scope="module", params=["torchvision_v1", "torchvision_v2"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    images = [photograph(*size, seed) for seed, size in enumerate(SIZES)]
    with torch.no_grad():
        yield make_pair(request.param, images, LIMITS)


@dataclass
class Outputs:
    """What both say of a batch before post-processing, anchors of a cell in our order."""

    theirs: dict[str, Tensor]
    anchors: Tensor
    ours: Predictions


@pytest.fixture(scope="module")
def outputs(pair: Pair) -> Outputs:
    with torch.no_grad():
        images, _ = pair.theirs.transform([as_theirs(x) for x in pair.images])
        features = list(pair.theirs.backbone(images.tensors).values())
        heads = {name: in_our_order(x) for name, x in pair.theirs.head(features).items()}
        anchors = pair.theirs.anchor_generator(images, features)[0]
        return Outputs(heads, in_our_order(anchors[None])[0], pair.ours(pair.batch()))


def in_our_order(rows: Tensor) -> Tensor:
    """(N, A, ...) with the nine anchors of each cell as we count them."""
    cells = rows.reshape(len(rows), -1, 9, *rows.shape[2:])
    return cells[:, :, ORDER].reshape(rows.shape)


class TestOutputs:
    def test_the_pixels_are_theirs(self, pair: Pair) -> None:
        batch = pair.batch()
        wanted, _ = pair.theirs.transform([as_theirs(x) for x in pair.images])
        assert batch.sizes.tolist() == [list(size) for size in wanted.image_sizes]
        pixels = pair.ours.normalize(batch.images, batch.sizes)
        # Interpolation in float32, theirs before and ours after dividing by 255.
        torch.testing.assert_close(pixels, wanted.tensors, rtol=0, atol=2e-5)

    def test_anchors_are_theirs_exactly(self, pair: Pair, outputs: Outputs) -> None:
        assert torch.equal(outputs.ours.anchors.boxes.double(), outputs.anchors)
        assert pair.ours.anchors_for(pair.batch()) is outputs.ours.anchors

    def test_logits_and_deltas_are_theirs(self, outputs: Outputs) -> None:
        logits = outputs.theirs["cls_logits"][..., CATEGORY_IDS]
        assert logits.std() > 0.5
        torch.testing.assert_close(outputs.ours.logits, logits, rtol=0, atol=1e-4)
        deltas = outputs.theirs["bbox_regression"]
        torch.testing.assert_close(outputs.ours.deltas, deltas, rtol=0, atol=1e-4)

    def test_a_wrong_order_of_anchors_is_far_from_that(self, pair: Pair, outputs: Outputs) -> None:
        """Names and shapes fit all the same: only numbers tell."""
        wrong = replace(SOURCES["torchvision_v1"], ratio_is_outer=False)
        if pair.plain["model"]["head"]["norm"] == "group":
            wrong = replace(SOURCES["torchvision_v2"], ratio_is_outer=False)
        right = pair.ours.state_dict()
        state = to_ours(wrong, pair.theirs.state_dict(), right, "theirs")
        changed = [name for name in right if not torch.equal(right[name], state[name].double())]
        assert changed == [
            f"head.{kind}_outputs.{part}"
            for kind in ("class", "box")
            for part in ("weight", "bias")
        ]
        before = {name: value.clone() for name, value in right.items()}
        pair.ours.load_state_dict(state)
        with torch.no_grad():
            found = pair.ours(pair.batch())
        pair.ours.load_state_dict(before)
        wanted = outputs.theirs["cls_logits"][..., CATEGORY_IDS]
        assert (found.logits - wanted).abs().mean() > 0.1

    @pytest.mark.parametrize("change", ["eps", "p7"])
    def test_each_option_of_the_model_counts(
        self, pair: Pair, outputs: Outputs, change: str
    ) -> None:
        other = copy.deepcopy(pair.ours)
        if change == "eps":
            for module in other.modules():
                if isinstance(module, FrozenBatchNorm):
                    module.eps = 1e-5 - module.eps  # of the other version
        else:
            other.fpn.p7_relu = False
        with torch.no_grad():
            changed = other(pair.batch()).logits
        wanted = outputs.theirs["cls_logits"][..., CATEGORY_IDS]
        assert (changed - wanted).abs().max() > 1e-3

    @pytest.mark.parametrize(
        ("key", "value"), [("offset", 0.5), ("stride_mode", "fixed"), ("round_to_pixels", False)]
    )
    def test_each_option_of_the_anchors_counts(
        self, pair: Pair, outputs: Outputs, key: str, value: Any
    ) -> None:
        config = replace(pair.ours.anchors.config, **{key: value})
        other = type(pair.ours.anchors)(config)
        height, width = pair.batch().images.shape[-2:]
        assert not torch.equal(other.for_image(height, width).boxes.double(), outputs.anchors)


def test_boxes_scores_and_labels_are_theirs(pair: Pair) -> None:
    """In pixels of the original images, after all that either does to them."""
    config = pair.plain["model"]["postprocess"]
    assert (config["score_threshold"], config["detections_per_image"]) == (0.05, 300)
    whole = pair.images
    wanted = found_by_theirs(pair)
    for image, theirs in zip(whole, wanted, strict=True):
        one = replace(pair, images=[image])
        batch = one.batch()
        with torch.no_grad():
            node = from_plain(pair.plain).model.postprocess
            ours = postprocess(pair.ours(batch), Sigmoid(80), batch, node)[0]
        assert len(ours.scores) == 300
        assert_same(ours, theirs)


def test_older_names_of_the_first_version_are_understood(tmp_path: Path) -> None:
    """Blocks without a module of their own, towers numbered with their ReLUs."""
    theirs = make_torchvision("torchvision_v1").state_dict()
    older: dict[str, Tensor] = {}
    for name, value in theirs.items():
        parts = name.split(".")
        if "inner_blocks" in parts or "layer_blocks" in parts:
            parts.remove("0") if parts.index("0") == 4 else parts.pop(4)
        elif parts[2] == "conv":
            parts = [*parts[:3], str(2 * int(parts[3])), parts[5]]
        older[".".join(parts)] = value
    assert len(older) == len(theirs)
    assert "backbone.fpn.inner_blocks.2.weight" in older
    assert "head.regression_head.conv.6.bias" in older
    for name, state in (("new", theirs), ("old", older)):
        weights = save_state(tmp_path / f"{name}.pth", state)
        convert("torchvision_v1", weights, str(tmp_path / f"{name}.pt"), preset("torchvision_v1"))
    new, old = (checkpoint.load(tmp_path / f"{name}.pt")["model"] for name in ("new", "old"))
    assert all(torch.equal(value, old[name]) for name, value in new.items())
