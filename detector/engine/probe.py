"""What a run records of its own training, for the report of a comparison: it only looks on.

Nothing is drawn at random and no weight, buffer or gradient is changed, so a run with a probe is
the run without it, to the bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detector.data.loader import EvaluationItems, collate
from detector.engine import histograms
from detector.engine.checkpoint import write_atomically
from detector.engine.setup import Setup, State
from detector.engine.weighting import is_box_term
from detector.evaluation import coco
from detector.layouts import Layout, Sigmoid
from detector.models.postprocess import postprocess
from detector.structures import Batch, Matches, Predictions, Targets, to_device

BINS = 40
"""Of the histograms of probabilities, evenly from 0 to 1."""

HARDEST = 0.01
"""Share of the anchors that counts as the hardest."""

SIDE = 400
"""Pixels of the longer side of a picture that is kept."""

MOST_DETECTIONS = 20
"""Of an image, the best first."""

FINAL_IMAGES = 64
"""Of the val split, on which the trained model's losses are counted."""

SIDES = ("foreground", "background")

MOMENTS = ("start", "middle", "end")


def steps_to_record(num_steps: int, points: int) -> list[int]:
    """Steps 1 to num_steps, at most `points` of them, close at first and wide at the end."""
    places = np.geomspace(1, num_steps, min(points, num_steps))
    return sorted({round(float(place)) for place in places})


def true_probabilities(layout: Layout, logits: Tensor, matches: Matches) -> tuple[Tensor, Tensor]:
    """p_t (P,) of the anchors with an object, and of those that are background.

    With an object it is the score of its class. Of background it is one less the probability of an
    object; under Sigmoid, which asks each class by itself, of the class that is most wrong.
    """
    is_object = matches.foreground
    labels = matches.labels[is_object]
    own = layout.scores(logits[is_object]).gather(1, labels[:, None])[:, 0]
    return own, 1 - layout.foreground(logits[matches.background]).amax(-1)


@dataclass
class StepRecord:
    """Sums over the micro-batches of a step on this rank, which add up over ranks.

    scale: the loss scaler's factor, without which slopes of float16 logits would be rounded to 0;
    every share is one of the scaled gradient. magnitudes: |d class loss / d logits| of every anchor
    that is not neutral.
    """

    layout: Layout
    scale: float = 1.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    magnitudes: list[Tensor] = field(default_factory=list)

    def add(self, predictions: Predictions, matches: Matches, terms: dict[str, Tensor]) -> None:
        """A micro-batch, before its own `backward`, whose graph is kept."""
        class_loss = torch.stack([v for k, v in terms.items() if not is_box_term(k)]).sum()
        scaled = class_loss * self.scale
        (gradient,) = torch.autograd.grad(scaled, predictions.logits, retain_graph=True)
        with torch.no_grad():
            per_anchor = gradient.double().abs().sum(-1)
            logits = predictions.logits.detach().float()
            chosen = matches.background & (per_anchor > 0)
            best = self.layout.scores(logits).amax(-1).double()
            p_t = true_probabilities(self.layout, logits, matches)
            values = {
                "negative": per_anchor[matches.background].sum(),
                "every": per_anchor[matches.valid].sum(),
                "num_foreground": matches.foreground.sum().double(),
                "num_background": matches.background.sum().double(),
                "selected_background": chosen.sum().double(),
                "selected_score": best[chosen].sum(),
                "p_t_foreground": binned(p_t[0]),
                "p_t_background": binned(p_t[1]),
                "scores_foreground": binned(best[matches.foreground]),
                "scores_background": binned(best[matches.background]),
            }
            for name, value in values.items():
                self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.magnitudes.append(per_anchor[matches.valid])

    def line(self, setup: Setup, step: int) -> dict[str, Any]:
        """The record of the step, the same on every rank."""
        world = setup.world
        flat = torch.cat([value.reshape(-1) for value in self.sums.values()])
        sizes = [value.numel() for value in self.sums.values()]
        parts = world.sum(flat).split(sizes)
        sums = dict(zip(self.sums, (part.tolist() for part in parts), strict=True))
        number = {name: value[0] for name, value in sums.items() if len(value) == 1}
        every, selected = number["every"], number["selected_background"]
        hardest = self.hardest(setup, int(number["num_foreground"] + number["num_background"]))
        edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64).tolist()
        return {
            "step": step,
            "negative_share": number["negative"] / every if every else 0.0,
            "hardest_share": hardest / every if every else 0.0,
            "num_foreground": int(number["num_foreground"]),
            "num_background": int(number["num_background"]),
            "selected_background": int(selected),
            "selected_score": number["selected_score"] / selected if selected else None,
            **{
                key: {"edges": edges, **{s: sums[f"{key}_{s}"] for s in SIDES}}
                for key in ("p_t", "scores")
            },
        }

    def hardest(self, setup: Setup, number: int) -> float:
        """The sum of the largest magnitudes of all ranks; number: of the anchors of all ranks."""
        own = torch.cat(self.magnitudes)
        count = math.ceil(HARDEST * number)
        # The largest of all are among the largest of each rank.
        mine = own.topk(min(count, len(own))).values.tolist()
        every = [value for part in setup.world.gather(mine) for value in part]
        return float(sum(sorted(every, reverse=True)[:count]))


def binned(values: Tensor) -> Tensor:
    """(BINS,) counts of probabilities."""
    return torch.histc(values.float().clamp(0, 1).cpu(), BINS, 0, 1).to(values.device).double()


class Probe:
    """Records into the folder `probe` of a run; see `configs/train.yaml` for its keys.

    steps.jsonl: lines of `StepRecord`. images.json, images/: what is found on a few images at the
    start, in the middle and at the end. final.json: losses of the trained model, in bins.
    Lines and images of steps that a resumed run makes again are dropped first.
    """

    def __init__(self, setup: Setup, state: State, folder: Path) -> None:
        self.setup, self.folder, self.layout = setup, folder, state.loss.layout
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
    predictions, batch, _ = predicted(setup, state, [index])
    config = setup.config.model.postprocess
    best = postprocess(predictions, state.loss.layout, batch, config)[0]
    return coco.results(
        batch.image_ids[0],
        best.boxes[:MOST_DETECTIONS].cpu().double().numpy(),
        best.scores[:MOST_DETECTIONS].cpu().double().numpy(),
        best.labels[:MOST_DETECTIONS].cpu().numpy(),
        setup.val_set.annotations.category_ids,
    )


def predicted(
    setup: Setup, state: State, indices: Sequence[int]
) -> tuple[Predictions, Batch, Targets]:
    """What the evaluated model says of images of the val split."""
    items, device = EvaluationItems(setup.val_set, setup.augment), setup.world.device
    batch, targets = collate([items[0, i] for i in indices])
    batch, targets = to_device(batch, device), to_device(targets, device)
    model = state.evaluated_model.eval()
    with setup.precision.autocast(device):
        return model(batch), batch, targets


@torch.no_grad()
def final(setup: Setup, state: State) -> dict[str, Any]:
    """Histograms of logits of p_t and of focal losses on the first images, by foreground and not.

    A sample is an output of an anchor where classes are asked one by one (Sigmoid), as in the
    paper; under any other layout it is an anchor, with `true_probabilities`. Summed over ranks.
    """
    world, layout = setup.world, state.loss.layout
    number = min(FINAL_IMAGES, len(setup.val_set.annotations))
    at = histograms.edges()
    parts = {side: histograms.histogram(np.zeros(0), at) for side in SIDES}
    for index in range(world.rank, number, world.size):
        predictions, _, targets = predicted(setup, state, [index])
        matches = setup.matcher(predictions.anchors, targets, predictions)
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
