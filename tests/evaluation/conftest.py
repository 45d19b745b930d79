from __future__ import annotations

import pytest


@pytest.fixture(params=["pycocotools", "faster_coco_eval"])
def evaluator(request: pytest.FixtureRequest) -> str:
    """Each evaluator that is installed."""
    if request.param == "faster_coco_eval":
        pytest.importorskip("faster_coco_eval")
    return request.param
