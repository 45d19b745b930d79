"""Converted weights against what detectron2 and mmdetection themselves said of them.

The files in `golden` were written by these frameworks, see `golden/make_*.py`; nothing in them is
ours. Weights and image follow from a formula that both sides calculate.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detector.config import from_plain
from detector.config.registry import AUGMENTATIONS
from detector.config.schema import Plug
from detector.convert.sources import SOURCES, to_ours
from detector.data.loader import collate
from detector.data.transforms import without_objects
from detector.layouts import Sigmoid
from detector.matchers.retinanet import RetinaNetMatcher
from detector.models.postprocess import postprocess
from detector.structures import Batch, Predictions, Targets
from tests.convert.foreign import ORDER, empty
from tests.convert.golden import formula

GOLDEN = Path(__file__).parent / "golden"


class Case:
    """Their numbers, and our model with their weights on the same image."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.golden = json.loads((GOLDEN / f"{source}.json").read_text())
        model, plain = empty(source)
        is_raw = SOURCES[self.source].is_bgr
        theirs = {
            name: torch.from_numpy(formula.weights(name, tuple(shape), is_raw=is_raw))
            for name, shape in self.golden["names"].items()
            if not name.endswith("num_batches_tracked")
        }
        state = to_ours(SOURCES[self.source], theirs, model.state_dict(), source)
        model.load_state_dict(state)
        options = plain["augment"] | {"min_size": formula.MIN_SIZE, "max_size": formula.MAX_SIZE}
        options.pop("name")
        augment = AUGMENTATIONS.build(Plug("albumentations", options))
        sample = augment.evaluate(without_objects(formula.image()))
        self.batch: Batch = collate([(sample, 1, 0)])[0]
        self.config = from_plain(plain).model.postprocess
        with torch.no_grad():
            self.predictions: Predictions = model.eval()(self.batch)

    def ours(self, index: int) -> int:
        """Our number of the anchor that is their number `index`."""
        if not SOURCES[self.source].ratio_is_outer:
            return index
        return index - index % 9 + ORDER.index(index % 9)

    def kept(self) -> list[int]:
        num_anchors = len(self.predictions.anchors.boxes)
        return [self.ours(i) for i in formula.positions(num_anchors)]

    def numbers(self, key: str) -> Tensor:
        return torch.tensor(self.golden[key])


@pytest.fixture(scope="module", params=["detectron2", "mmdet", "mmdet_caffe"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_images_are_resized_and_padded_as_theirs(case: Case) -> None:
    sizes = [case.batch.sizes[0].tolist(), list(case.batch.images.shape[2:])]
    assert sizes == case.golden["sizes"]


def test_anchors_are_theirs(case: Case) -> None:
    ours = case.predictions.anchors.boxes[case.kept()]
    # Written with four digits; at 500 px the next float32 is 6e-5 away.
    torch.testing.assert_close(ours, case.numbers("anchors"), rtol=0, atol=2e-4)


def test_logits_and_deltas_are_theirs(case: Case) -> None:
    # Two float32 programs: 5e-6 apart where measured, each 3e-6 from float64.
    logits = case.predictions.logits[0, case.kept()][:, ::20]
    assert case.predictions.logits.std() > 0.9
    torch.testing.assert_close(logits, case.numbers("logits"), rtol=0, atol=1e-4)
    deltas = case.predictions.deltas[0, case.kept()]
    torch.testing.assert_close(deltas, case.numbers("deltas"), rtol=0, atol=1e-4)


def test_boxes_scores_and_labels_are_theirs(case: Case) -> None:
    found = postprocess(case.predictions, Sigmoid(80), case.batch, case.config)[0]
    assert len(found.scores) == case.golden["num_found"] == 100
    num = len(case.golden["scores"])
    assert case.numbers("scores").diff().max() < -1e-6  # none is tied
    torch.testing.assert_close(found.scores[:num], case.numbers("scores"), rtol=0, atol=1e-4)
    assert found.labels[:num].tolist() == case.golden["labels"]
    torch.testing.assert_close(found.boxes[:num], case.numbers("boxes"), rtol=0, atol=1e-3)


def test_the_matcher_chooses_as_theirs(case: Case) -> None:
    """The small object within a large one fits no anchor: in mmdetection it gets one all the same,
    in detectron2 that anchor goes to the large one."""
    targets = Targets(
        boxes=torch.tensor([formula.BOXES]),
        labels=torch.arange(3)[None],
        crowd=torch.zeros(1, 3, dtype=torch.bool),
        image_sizes=case.batch.sizes,
        image_ids=(1,),
        keys=torch.zeros(1, dtype=torch.int64),
    )
    force = "anchor" if case.source == "detectron2" else "object"
    matches = RetinaNetMatcher(force=force)(case.predictions.anchors, targets)
    wanted = {case.ours(int(i)): k for i, k in case.golden["positives"].items()}
    positive = matches.foreground[0].nonzero()[:, 0].tolist()
    assert {i: int(matches.objects[0, i]) for i in positive} == wanted
    assert set(wanted.values()) == ({0, 1} if force == "anchor" else {0, 1, 2})
    assert int((~matches.valid).sum()) == case.golden["num_neutral"]
