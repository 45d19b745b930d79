"""Converted weights against torchvision's own RetinaNets, on the same pixels."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNet

from detector.config import from_plain
from detector.convert.coco import CATEGORY_IDS
from detector.convert.sources import SOURCES, to_ours
from detector.data.loader import collate
from detector.engine import checkpoint
from detector.engine.convert import convert
from detector.engine.predict import without_objects
from detector.layouts import Sigmoid
from detector.models.detector import Detector
from detector.models.norm import FrozenBatchNorm
from detector.models.postprocess import postprocess
from detector.registry import AUGMENTATIONS
from detector.schema import Plug
from detector.structures import Batch, Detections, Predictions
from tests.commands import Command
from tests.convert.foreign import ORDER, empty, make_torchvision, preset, save_state, scale_outputs

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "coco128" / "train2017"

SIZES = ((96, 128), (101, 147), (150, 83), (64, 211))
"""(height, width) of images; the last is so long that max_size decides."""

LIMITS = {"min_size": 96, "max_size": 224}
TIE = 1e-5
"""Scores nearer to one another may change places: both sides round in float32."""


@dataclass
class Pair:
    """Theirs and ours, with the images as both have them."""

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
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1) / 255


def make_pair(source: Any, images: list[NDArray[np.uint8]], limits: dict[str, int]) -> Pair:
    theirs = make_torchvision(source, **limits)
    scale_outputs(theirs, [as_theirs(x) for x in images])
    ours, plain = empty(source)
    plain["augment"] |= limits
    state = to_ours(SOURCES[source], theirs.state_dict(), ours.state_dict(), "theirs")
    ours.load_state_dict(state)
    return Pair(theirs, ours.eval(), plain, images)


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
        assert torch.equal(outputs.ours.anchors.boxes, outputs.anchors)
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
        changed = [name for name in right if not torch.equal(right[name], state[name])]
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
        assert not torch.equal(other.for_image(height, width).boxes, outputs.anchors)


def found_by_theirs(pair: Pair) -> list[Detections]:
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
            found.append(Detections(row["boxes"], row["scores"], labels))
    return found


def assert_same(ours: Detections, theirs: Detections) -> None:
    """Equal but for the order of scores that are tied, and for which of those is cut off."""
    assert len(ours.scores) == len(theirs.scores)
    # Sigmoids of logits that agree to 1e-4.
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-4)
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


def _in_fixed_order(found: Detections, start: int, stop: int) -> Tensor:
    """(n, 5) rows of label and box."""
    rows = torch.cat([found.labels[:, None].double(), found.boxes.double()], 1)[start:stop]
    return torch.stack(sorted(rows, key=lambda row: [round(float(x), 1) for x in row]))


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


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="the photographs are not on this machine")
@pytest.mark.parametrize("source", ["torchvision_v1", "torchvision_v2"])
def test_the_tools_find_theirs_on_photographs(
    source: Any, tmp_path: Path, command: Command
) -> None:
    """File to file: converted, then predicted, with the images of a checkpoint's config smaller."""
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[:3]
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    pair = make_pair(source, images, LIMITS)
    weights = save_state(tmp_path / "theirs.pth", pair.theirs.state_dict())
    command("convert", f"source={source}", f"weights={weights}", "output=ours.pt")
    content = checkpoint.load("ours.pt")
    content.pop("format_version")
    content["config"]["augment"] |= LIMITS
    checkpoint.save(Path("small.pt"), content)
    (tmp_path / "in").mkdir()
    for file in files:
        (tmp_path / "in" / file.name).symlink_to(file)
    done = command(
        "predict", "checkpoint=small.pt", "source=in", "output_dir=out", "threshold=0.05",
        "device=cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    for row, theirs in zip(rows, found_by_theirs(pair), strict=True):
        labels = torch.tensor([CATEGORY_IDS.index(i) for i in row["category_ids"]])
        ours = Detections(torch.tensor(row["boxes"]), torch.tensor(row["scores"]), labels)
        assert len(labels) == 300
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
