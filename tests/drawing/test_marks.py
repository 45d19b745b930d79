"""What is drawn of detections."""

from __future__ import annotations

import pytest
import torch

from detector.drawing.drawing import Mark
from detector.drawing.marks import of_detections
from detector.structures import DetectionTensors


@pytest.mark.parametrize("is_array", [False, True])
def test_detections_have_their_names_and_scores_the_surest_first(is_array: bool) -> None:
    fields = (
        torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8.0]]),
        torch.tensor([0.987, 0.5]),
        torch.tensor([1, 0]),
    )
    found = DetectionTensors(*(field.numpy() if is_array else field for field in fields))
    assert of_detections(found, ("cat", "dog")) == [
        Mark((1, 2, 3, 4), 1, "dog 0.99"),
        Mark((5, 6, 7, 8), 0, "cat 0.50"),
    ]
