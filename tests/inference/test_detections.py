"""What was found in an image: reading, filtering, drawing, writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detector.drawing.drawing import Mark, draw
from detector.errors import DataError
from detector.evaluation.coco import results
from detector.inference.detections import Detection, Detections

BOXES = np.array([[1, 2, 30, 40], [0.5, 0.25, 9, 8], [20, 10, 50.1, 60]], np.float32)
SCORES = np.array([0.91, 0.85, 0.3], np.float32)
LABELS = np.array([0, 1, 0])
CLASSES, IDS = ("cat", "dog"), (17, 90)


def make(count: int = 3, **changes: Any) -> Detections:
    fields: dict[str, Any] = {
        "boxes": BOXES[:count],
        "scores": SCORES[:count],
        "labels": LABELS[:count],
        "classes": CLASSES,
        "category_ids": IDS,
    }
    return Detections(**{**fields, **changes})


def assert_same(found: Detections, places: list[int]) -> None:
    """These of all that `make` gives."""
    assert np.array_equal(found.boxes, BOXES[places])
    assert np.array_equal(found.scores, SCORES[places])
    assert np.array_equal(found.labels, LABELS[places])
    assert (found.classes, found.category_ids) == (CLASSES, IDS)


def test_one_after_the_other_has_box_score_label_and_name() -> None:
    found = make()
    assert list(found) == [
        Detection((1, 2, 30, 40), float(SCORES[0]), 0, "cat"),
        Detection((0.5, 0.25, 9, 8), float(SCORES[1]), 1, "dog"),
        Detection((20, 10, float(BOXES[2, 2]), 60), float(SCORES[2]), 0, "cat"),
    ]
    assert [type(value) for value in found[0]] == [tuple, float, int, str]
    assert len(found) == 3
    assert found.names == ["cat", "dog", "cat"]


def test_an_index_gives_one_and_may_count_from_the_end() -> None:
    found, listed = make(), list(make())
    assert found[0] == found[np.int64(0)] == listed[0]
    assert found[-1] == listed[2]
    with pytest.raises(IndexError):
        found[3]


@pytest.mark.parametrize(
    ("which", "places"),
    [
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        (np.array([True, False, True]), [0, 2]),
        ([True, False, True], [0, 2]),
        ([2, 0], [2, 0]),
        (np.array([1]), [1]),
        ([], []),
        (np.zeros(3, bool), []),
    ],
)
def test_slices_masks_and_places_give_detections_again(which: Any, places: list[int]) -> None:
    assert_same(make()[which], places)


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(IndexError):
        make()[np.array([True, False])]


def test_above_leaves_out_what_equals_the_threshold() -> None:
    assert_same(make().above(0.85), [0])
    assert_same(make().above(0.84), [0, 1])
    assert len(make().above(1.0)) == 0
    assert len(make(0).above(0.5)) == 0


def test_the_text_says_how_many_and_which_are_the_surest() -> None:
    assert repr(make(0)) == "no detections"
    assert repr(make(1)) == "1 detection: cat 0.91"
    assert str(make()) == "3 detections: cat 0.91, dog 0.85, cat 0.30"
    many = make()[[0, 0, 0, 1, 1, 2]]
    assert repr(many) == "6 detections: cat 0.91, cat 0.91, cat 0.91, dog 0.85, dog 0.85, ..."


class TestWriting:
    def test_rows_of_coco_are_those_of_evaluation_by_hand_and_by_its_own_call(self) -> None:
        rows = make(2).to_coco(7)
        assert rows == [
            {
                "image_id": 7,
                "category_id": 17,
                "bbox": [1, 2, 29, 38],
                "score": float(SCORES[0]),
            },
            {
                "image_id": 7,
                "category_id": 90,
                "bbox": [0.5, 0.25, 8.5, 7.75],
                "score": float(SCORES[1]),
            },
        ]
        assert make().to_coco(7) == results(7, BOXES, SCORES, LABELS, IDS)
        assert json.loads(json.dumps(rows)) == rows
        assert make(0).to_coco(7) == []

    @pytest.mark.parametrize("count", [0, 3])
    def test_a_dict_holds_xyxy_boxes_scores_names_and_ids(self, count: int) -> None:
        found = make(count)
        assert found.to_dict() == {
            "boxes": BOXES[:count].tolist(),
            "scores": SCORES[:count].tolist(),
            "labels": ["cat", "dog", "cat"][:count],
            "category_ids": [17, 90, 17][:count],
        }
        assert json.loads(json.dumps(found.to_dict())) == found.to_dict()

    def test_tensors_have_the_same_numbers_and_types(self) -> None:
        for found in (make(), make()[::-1], make(0)):
            tensors = found.torch()
            assert list(tensors) == ["boxes", "scores", "labels"]
            for name, tensor in tensors.items():
                assert np.array_equal(tensor.numpy(), getattr(found, name))
                assert tensor.dtype == (torch.int64 if name == "labels" else torch.float32)
                assert tensor.device.type == "cpu"


class TestDrawing:
    def test_path_image_and_array_become_the_same_picture(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
        before = pixels.copy()
        image = Image.fromarray(pixels)
        image.save(tmp_path / "a.png")
        marks = [
            Mark((1, 2, 30, 40), 0, "cat 0.91"),
            Mark((0.5, 0.25, 9, 8), 1, "dog 0.85"),
            Mark((20, 10, float(BOXES[2, 2]), 60), 0, "cat 0.30"),
        ]
        expected = np.asarray(draw(pixels, marks))
        for source in (pixels, image, tmp_path / "a.png", str(tmp_path / "a.png")):
            drawn = make().draw(source)
            assert isinstance(drawn, Image.Image)
            assert np.array_equal(np.asarray(drawn), expected)
        assert np.array_equal(pixels, before)
        assert np.array_equal(np.asarray(image), before)

    def test_nothing_found_is_a_copy(self) -> None:
        image = Image.new("L", (20, 10), 7)
        drawn = make(0).draw(image)
        assert drawn is not image
        assert (np.asarray(drawn) == 7).all()

    def test_what_is_no_image_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="nowhere"):
            make().draw(tmp_path / "nowhere.jpg")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"boxes": BOXES[:2]},
            "boxes: shape (2, 4), float32 given, an array of shape (3, 4), float32 is needed",
        ),
        (
            {"boxes": BOXES[:, :3]},
            "boxes: shape (3, 3), float32 given, an array of shape (3, 4), float32 is needed",
        ),
        (
            {"boxes": BOXES.astype(np.float16)},
            "boxes: shape (3, 4), float16 given, an array of shape (3, 4), float32 is needed",
        ),
        (
            {"scores": SCORES[:, None]},
            "scores: shape (3, 1), float32 given, an array of shape (3,), float32 is needed",
        ),
        (
            {"scores": [0.5, 0.4, 0.3]},
            "scores: list given, an array of shape (3,), float32 is needed",
        ),
        (
            {"labels": LABELS.astype(np.int32)},
            "labels: shape (3,), int32 given, an array of shape (3,), int64 is needed",
        ),
        (
            {"labels": LABELS + 1},
            "labels: 2 given, 0 to 1 are the labels of 2 classes",
        ),
        (
            {"labels": LABELS - 1},
            "labels: -1 given, 0 to 1 are the labels of 2 classes",
        ),
        ({"category_ids": (17,)}, "category_ids: 1 given for 2 classes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        make(**changes)
    assert str(caught.value) == message
