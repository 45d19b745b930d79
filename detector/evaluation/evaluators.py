"""The libraries that compute COCO's metrics, behind one call."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.errors import ConfigError


@dataclass(frozen=True)
class Evaluator:
    """data: its class of a data set. scoring: makes a `COCOeval`. version: of the package."""

    data: Callable[[], Any]
    scoring: Callable[..., Any]
    version: str

    def run(
        self, truth: Mapping[str, Any], found: Mapping[str, Any], max_detections: int = 100
    ) -> Any:
        """The finished `COCOeval` of two COCO dicts: its `stats` (12,) and `eval` tables.

        The annotations of both are written into. Prints nothing, though the libraries do.
        max_detections: of an image and class, the best by score; with another number than COCO's
        100 the `stats` are taken from the tables here, since the libraries' own are -1 then.
        """
        with contextlib.redirect_stdout(io.StringIO()):
            scoring = self.scoring(self._load(truth), self._load(found), iouType="bbox")
            scoring.params.maxDets = [1, 10, max_detections]
            scoring.evaluate()
            scoring.accumulate()
            if max_detections == 100:
                scoring.summarize()
            else:
                scoring.stats = summary(scoring.eval)
        return scoring

    def _load(self, dataset: Mapping[str, Any]) -> Any:
        # Detections too, and not by `loadRes`, which fails where there is none.
        data = self.data()
        data.dataset = dict(dataset)
        data.createIndex()
        return data


def summary(tables: Mapping[str, Any]) -> NDArray[np.float64]:
    """(12,) what `COCOeval.summarize` takes from its tables, for any three limits of detections.

    precision: (T, R, K, A, M), recall: (T, K, A, M) over IoU, recall, class, area, limit.
    """

    def mean(values: NDArray[np.float64]) -> float:
        known = values[values > -1]
        return float(known.mean()) if known.size else -1.0

    precision, recall = np.asarray(tables["precision"]), np.asarray(tables["recall"])
    ap = [mean(precision[:, :, :, area, 2]) for area in range(4)]
    at = [mean(precision[t, :, :, 0, 2]) for t in (0, 5)]
    ar = [mean(recall[:, :, 0, limit]) for limit in range(3)]
    by_area = [mean(recall[:, :, area, 2]) for area in (1, 2, 3)]
    return np.array([ap[0], *at, *ap[1:], *ar, *by_area])


def get_evaluator(name: str) -> Evaluator:
    """pycocotools, the reference, or faster_coco_eval, which is some ten times faster.

    Raises ConfigError for another name, or where it is not installed.
    """
    if name == "pycocotools":
        data = importlib.import_module("pycocotools.coco").COCO
        scoring = importlib.import_module("pycocotools.cocoeval").COCOeval
        return Evaluator(data, scoring, metadata.version("pycocotools"))
    if name != "faster_coco_eval":
        raise ConfigError(
            f"evaluation.evaluator: {name!r} is not one of pycocotools, faster_coco_eval"
        )
    try:
        package = importlib.import_module("faster_coco_eval")
    except ModuleNotFoundError:
        raise ConfigError(
            "evaluation.evaluator: faster_coco_eval is not installed; the extra `fast-eval` "
            "installs it (pip install 'dense-detector[fast-eval]'), or take pycocotools"
        ) from None
    silent = partial(package.COCOeval_faster, print_function=lambda *_: None)
    return Evaluator(package.COCO, silent, metadata.version("faster-coco-eval"))
