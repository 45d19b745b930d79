"""What a run records of its own training, for the report of a comparison: it only looks on.

Nothing is drawn at random and no weight, buffer or gradient is changed, so a run with a probe is
the run without it, to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detector.data.loader import EvaluationItems, collate
from detector.evaluation import coco
from detector.layouts import Layout, Sigmoid
from detector.runs.checkpoint import write_atomically
from detector.structures import Batch, Matches, Predictions, Targets, to_device
from detector.training.probe import histograms
from detector.training.probe.step_record import SIDES, StepRecord, true_probabilities
from detector.training.setup import Setup, predictor_of
from detector.training.state import State

SIDE = 400
"""Pixels of the longer side of a picture that is kept."""

MOST_DETECTIONS = 20
"""Of an image, the best first."""

FINAL_IMAGES = 64
"""Of the val split, on which the trained model's losses are counted."""

MOMENTS = ("start", "middle", "end")


def steps_to_record(num_steps: int, points: int) -> list[int]:
    """Steps 1 to num_steps, at most `points` of them, close at first and wide at the end."""
    places = np.geomspace(1, num_steps, min(points, num_steps))
    return sorted({round(float(place)) for place in places})


class Probe:
    """Records into the folder `probe` of a run; see `configs/train.yaml` for its keys.

    steps.jsonl: lines of `StepRecord`. images.json, images/: what is found on a few images at the
    start, in the middle and at the end. final.json: losses of the trained model, in bins.
    Lines and images of steps that a resumed run makes again are dropped first.
    """

    def __init__(self, setup: Setup, state: State, folder: Path) -> None:
        self.setup, self.folder, self.layout = setup, folder, state.criterion.layout
        self.steps = steps_to_record(setup.num_steps, setup.config.probe.points)
        self.middle = setup.num_steps // 2
        self.lines: list[dict[str, Any]] = []
        self.images: dict[str, Any] = {}
        if setup.world.is_main:
            if state.step > 0:
                self.lines = [r for r in self.read_lines() if r["step"] <= state.step]
                self.images = self.read_images(state.step)
            folder.mkdir(parents=True, exist_ok=True)
            self.write_lines()
        if state.step == 0:
            self.look(state, "start")

    def read_lines(self) -> list[dict[str, Any]]:
        path = self.folder / "steps.jsonl"
        text = path.read_text() if path.is_file() else ""
        return [json.loads(line) for line in text.splitlines()]

    def read_images(self, step: int) -> dict[str, Any]:
        path = self.folder / "images.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        late = [m for m in MOMENTS if m in known and known[m]["step"] > step]
        return {key: value for key, value in known.items() if key not in late}

    def record(self, state: State) -> StepRecord | None:
        """What the next step is to add its micro-batches to."""
        is_wanted = state.step + 1 in self.steps
        return StepRecord(self.layout, state.scaler.get_scale()) if is_wanted else None

    def after(self, state: State, record: StepRecord | None, *, is_finite: bool) -> None:
        """At the end of a step that counts as `state.step`."""
        if record is not None and is_finite:
            line = record.line(self.setup, state.step)
            if self.setup.world.is_main:
                self.lines.append(line)
                self.write_lines()
        if state.step == self.middle:
            self.look(state, "middle")
        if state.step == self.setup.num_steps:
            self.look(state, "end")
            self.write("final.json", final(self.setup, state))

    def write_lines(self) -> None:
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        write_atomically(self.folder / "steps.jsonl", text.encode())

    def write(self, name: str, content: dict[str, Any]) -> None:
        if self.setup.world.is_main:
            write_atomically(self.folder / name, json.dumps(content).encode())

    def look(self, state: State, moment: str) -> None:
        """Detections of the weights as they are, on the images that are always the same."""
        setup = self.setup
        if not setup.world.is_main:
            return
        dataset, wanted = setup.val_set, setup.config.probe.images
        annotations = dataset.annotations
        has_objects = np.flatnonzero(np.diff(annotations.starts) > 0)[:wanted].tolist()
        ids = [int(annotations.image_ids[index]) for index in has_objects]
        if not self.images:
            truth = coco.ground_truth(annotations.select(has_objects))["annotations"]
            keys = ("image_id", "category_id", "bbox")
            self.images = {
                "image_ids": ids,
                "truth": [{key: row[key] for key in keys} for row in truth],
                "sizes": {},
            }
            for index, image_id in zip(has_objects, ids, strict=True):
                self.keep_picture(index, image_id)
        rows = [row for index in has_objects for row in found(setup, state, index)]
        self.images[moment] = {"step": state.step, "detections": rows}
        self.write("images.json", self.images)

    def keep_picture(self, index: int, image_id: int) -> None:
        """The pixels of an image, shrunk where they are many."""
        image = Image.fromarray(self.setup.val_set.image(index))
        self.images["sizes"][str(image_id)] = list(image.size)
        image.thumbnail((SIDE, SIDE))
        path = self.folder / "images" / f"{image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


@torch.no_grad()
def found(setup: Setup, state: State, index: int) -> list[dict[str, Any]]:
    """The best detections of an image of the val split, as rows of COCO's results format."""
    predictor = predictor_of(setup, state)
    batch, _ = val_images(setup, [index])
    return predictor.detect(batch)[0][:MOST_DETECTIONS].to_coco(batch.image_ids[0])


def val_images(setup: Setup, indices: Sequence[int]) -> tuple[Batch, Targets]:
    """Images of the val split as one batch, with what is on them."""
    items = EvaluationItems(setup.val_set, setup.augment)
    return collate([items[0, i] for i in indices])


@torch.no_grad()
def final(setup: Setup, state: State) -> dict[str, Any]:
    """Histograms of logits of p_t and of focal losses on the first images, by foreground and not.

    A sample is an output of an anchor where classes are asked one by one (Sigmoid), as in the
    paper; under any other layout it is an anchor, with `true_probabilities`. Summed over ranks.
    """
    world, layout = setup.world, state.criterion.layout
    number = min(FINAL_IMAGES, len(setup.val_set.annotations))
    predictor, at = predictor_of(setup, state), histograms.edges()
    parts = {side: histograms.histogram(np.zeros(0), at) for side in SIDES}
    for index in range(world.rank, number, world.size):
        batch, targets = val_images(setup, [index])
        predictions, targets = predictor.predict(batch), to_device(targets, world.device)
        matches = state.criterion.match(predictions.anchors, targets, predictions)
        for side, logits in zip(SIDES, true_logits(layout, predictions, matches), strict=True):
            more = histograms.histogram(logits.double().cpu().numpy(), at)
            parts[side] = histograms.added(parts[side], more)
    return {side: histograms.summed([p[side] for p in world.gather(parts)]) for side in SIDES}


def true_logits(
    layout: Layout, predictions: Predictions, matches: Matches
) -> tuple[Tensor, Tensor]:
    """log(p_t / (1 - p_t)) of the samples of `final`, of foreground and of background."""
    logits = predictions.logits.float()
    if isinstance(layout, Sigmoid):
        truth = matches.one_hot(logits.shape[-1])
        valid = matches.valid[..., None].expand_as(logits)
        return logits[truth & valid], -logits[~truth & valid]
    own, rest = true_probabilities(layout, logits, matches)
    return own.double().logit(eps=1e-15), rest.double().logit(eps=1e-15)
