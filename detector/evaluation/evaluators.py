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

from detector.errors import ConfigError


@dataclass(frozen=True)
class Evaluator:
    """data: its class of a data set. scoring: makes a `COCOeval`. version: of the package."""

    data: Callable[[], Any]
    scoring: Callable[..., Any]
    version: str

    def run(self, truth: Mapping[str, Any], found: Mapping[str, Any]) -> Any:
        """The finished `COCOeval` of two COCO dicts: its `stats` (12,) and `eval` tables.

        The annotations of both are written into. Prints nothing, though the libraries do.
        """
        with contextlib.redirect_stdout(io.StringIO()):
            scoring = self.scoring(self._load(truth), self._load(found), iouType="bbox")
            scoring.evaluate()
            scoring.accumulate()
            scoring.summarize()
        return scoring

    def _load(self, dataset: Mapping[str, Any]) -> Any:
        # Detections too, and not by `loadRes`, which fails where there is none.
        data = self.data()
        data.dataset = dict(dataset)
        data.createIndex()
        return data


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
