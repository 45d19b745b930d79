"""What a registered loss says of one anchor: value and slope, asked of the loss itself.

The loss is built for a single class and evaluated in float64 on images that hold one anchor each.
The logit that is varied is the one its layout's `foreground` rises with; the others are 0, so for a
softmax it is the difference of the logits of class and background. The predicted box is the anchor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from detector.boxes import decode, encode
from detector.config.registry import LOSSES
from detector.config.schema import Plug
from detector.layouts import Deltas, Layout
from detector.structures import BACKGROUND, Anchors, Matches, Predictions, Targets

SIDE = 64.0
"""Pixels of the anchor's sides; no loss of scores depends on it."""

MARKS = (0.5, 0.9)
"""p_t at which losses are compared with cross entropy."""

EQUALS = "\u00a0=\u00a0"
"""Between an option and its value: no line breaks there."""

GREEK = {
    "alpha": "\u03b1",
    "beta": "\u03b2",
    "gamma": "\u03b3",
    "lambda": "\u03bb",
    "tau": "\u03c4",
    "epsilon": "\u03b5",
}


Companion = Literal["positive", "background"]


@dataclass(frozen=True)
class Curve:
    """A loss over logits, each (P,) float64.

    p_t: probability of the truth. loss: of the terms that depend on the logit. slope: d loss / dx.
    """

    x: Tensor
    p_t: Tensor
    loss: Tensor
    slope: Tensor


@dataclass(frozen=True)
class Probe:
    """A loss asked about an anchor that has an object (`truth`) or has none.

    companion: another anchor of the image, without which this one would not count: one that has an
    object, or one that has none.
    """

    loss: Any
    truth: bool
    companion: Companion | None

    @property
    def layout(self) -> Layout:
        return self.loss.layout

    def __call__(self, x: Tensor, iou: float = 1.0) -> Curve:
        """The curve over logits x (P,). iou: of the predicted box and the object, if there is one.

        Terms that do not depend on the logit, such as a class given that there is an object, are
        left out; so is the companion.
        """
        x = x.detach().double().requires_grad_()
        predictions = _predictions(self.layout, x, self.companion)
        terms = self._terms(predictions, x, iou).values()
        loss, slope = torch.zeros_like(x), torch.zeros_like(x)
        for value, part in terms:
            if part.any():
                loss, slope = loss + value.detach(), slope + part
        p = self.layout.foreground(predictions.logits[:, 0])[:, 0].detach()
        return Curve(x.detach(), p if self.truth else 1 - p, loss.detach(), slope)

    def left_out(self) -> list[str]:
        """Names of the terms that do not depend on the logit and are not 0."""
        x = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
        predictions = _predictions(self.layout, x, self.companion)
        terms = self._terms(predictions, x, 1.0).items()
        return [name for name, (value, slope) in terms if value.any() and not slope.any()]

    def _terms(
        self, predictions: Predictions, x: Tensor, iou: float
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """(P,) value and slope of each term at the first anchor."""
        matches = _matches(predictions, self.truth, iou, self.companion)
        if self.loss.ranks:
            values = self._values_by_image(predictions, matches)
        else:
            terms = self.loss(predictions, matches)
            values = {name: _of_first_anchor(term) for name, term in terms.items()}
        return {name: (value, _slope(value, x)) for name, value in values.items()}

    def _values_by_image(self, predictions: Predictions, matches: Matches) -> dict[str, Tensor]:
        """(P,) of each term, each image ranked by itself; what is said of both its anchors."""
        found: dict[str, list[Tensor]] = {}
        for i in range(len(matches.labels)):
            part = slice(i, i + 1)
            targets = replace(matches.targets, boxes=matches.targets.boxes[part])
            own = replace(
                matches,
                labels=matches.labels[part],
                boxes=matches.boxes[part],
                objects=matches.objects[part],
                targets=targets,
            )
            logits, deltas = predictions.logits[part], predictions.deltas[part]
            for name, term in self.loss(
                replace(predictions, logits=logits, deltas=deltas), own
            ).items():
                found.setdefault(name, []).append(term.sum())
        return {name: torch.stack(values) for name, values in found.items()}


@dataclass(frozen=True)
class Subject:
    """A loss to draw. yes, no: how it is asked, None where a single anchor never counts."""

    name: str
    loss: Any
    label: str
    yes: Probe | None
    no: Probe | None
    notes: tuple[str, ...]


def subject(plug: Plug) -> Subject:
    """The registered loss of a plug, for one class. Raises ConfigError for a wrong name or option.

    The label says the name and the options that are given.
    """
    loss = LOSSES.build(plug, 1)
    yes, no = _probe(loss, truth=True), _probe(loss, truth=False)
    return Subject(plug.name, loss, _label(plug), yes, no, tuple(_notes(loss, yes, no)))


def depends_on_iou(probe: Probe) -> bool:
    """The loss of an anchor hangs on how well its predicted box fits."""
    x = torch.linspace(-2, 2, 5)
    return not torch.equal(probe(x).loss, probe(x, iou=0.5).loss)


def same(a: Subject, b: Subject) -> bool:
    """Two losses say the same of one anchor, whatever its logit."""
    x = torch.linspace(-8, 8, 33)
    return _same(a.yes, b.yes, x) and _same(a.no, b.no, x)


def _same(a: Probe | None, b: Probe | None, x: Tensor) -> bool:
    if a is None or b is None:
        return a is b
    # Other ways of computing the same function differ by rounding in float64.
    return torch.allclose(a(x).loss, b(x).loss, rtol=1e-9, atol=1e-12)


def _probe(loss: Any, *, truth: bool) -> Probe | None:
    """How to ask: alone if the anchor counts so, else beside a positive, else beside background,
    else None."""
    companions: tuple[Companion | None, ...] = (None, "positive", "background")
    for companion in companions:
        probe = Probe(loss, truth, companion)
        if probe(torch.tensor([-1.0, 0.0, 1.0])).slope.any():
            return probe
    return None


def _of_first_anchor(term: Tensor) -> Tensor:
    """(N,) of a term (N, A, K), (N, A) or (N,)."""
    return term if term.dim() == 1 else term[:, 0].reshape(len(term), -1).sum(1)


def _slope(value: Tensor, x: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(x)
    (slope,) = torch.autograd.grad(value.sum(), x, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x) if slope is None else slope


def _varied(layout: Layout) -> int:
    """Index of the logit that `foreground` rises with most."""
    zeros = torch.zeros(1, layout.num_outputs, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(layout.foreground(zeros).sum(), zeros)
    return int(slope.argmax())


def _predictions(layout: Layout, x: Tensor, companion: Companion | None) -> Predictions:
    """One image for each logit; the anchor that is asked about comes first."""
    num_anchors = 1 if companion is None else 2
    place = torch.zeros(num_anchors, layout.num_outputs, dtype=x.dtype)
    place[0, _varied(layout)] = 1
    boxes = torch.tensor([[0, 0, SIDE, SIDE], [500, 500, 500 + SIDE, 500 + SIDE]]).double()
    anchors = Anchors(boxes[:num_anchors], torch.full((num_anchors,), 16.0), (num_anchors,))
    deltas = x.new_zeros(len(x), num_anchors, 4)
    return Predictions(x[:, None, None] * place, deltas, anchors, _Coder())


def _matches(
    predictions: Predictions, truth: bool, iou: float, companion: Companion | None
) -> Matches:
    """The object of the first anchor is narrower than it: their IoU is `iou`."""
    num_images, num_anchors, _ = predictions.logits.shape
    label = 0 if truth else BACKGROUND
    other = BACKGROUND if companion == "background" else 0
    labels = torch.tensor([label, other][:num_anchors]).expand(num_images, -1)
    boxes = predictions.anchors.boxes.clone()
    if truth:
        boxes[0, 2] *= iou
    matched = boxes.expand(num_images, -1, -1)
    objects = torch.where(labels >= 0, torch.arange(num_anchors), BACKGROUND)
    targets = Targets(
        boxes=matched,
        labels=labels,
        crowd=torch.zeros_like(labels, dtype=torch.bool),
        image_sizes=torch.full((num_images, 2), 1024),
        image_ids=tuple(range(num_images)),
        keys=torch.arange(num_images),
    )
    return Matches(labels, matched, objects, predictions.anchors, targets)


class _Coder:
    """The R-CNN code without weights."""

    box_layout = Deltas()

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        return encode(boxes, anchors.to(boxes.dtype))

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        return decode(deltas, anchors.to(deltas.dtype))


def _label(plug: Plug) -> str:
    """Name and options, such as "focal, alpha = 0.5" with the Greek letter."""
    parts = [plug.name.replace("_", " ")]
    for key, value in plug.options.items():
        words = [GREEK.get(word, word) for word in key.split("_")]
        text = "none" if value is None else f"{value:g}" if isinstance(value, float) else value
        parts.append(f"{' '.join(words)}{EQUALS}{text}")
    return ", ".join(parts)


def _notes(loss: Any, yes: Probe | None, no: Probe | None) -> list[str]:
    """What a reader has to know of how the curve was made."""
    notes = []
    for probe, value in ((yes, 1), (no, 0)):
        if probe is None:
            notes.append(f"no curve for y = {value}: a single anchor never counts")
        elif probe.companion is not None:
            beside = "a positive" if probe.companion == "positive" else "background"
            notes.append(f"y = {value} is drawn beside {beside}, without which it does not count")
        if probe is not None and (names := probe.left_out()):
            listed = ", ".join(names)
            notes.append(f"y = {value} is drawn without {listed}, which has logits of its own")
    if loss.ranks:
        notes.append("the other anchor's logit is 0; among others the curve differs")
    elif not loss.separable:
        notes.append("the anchor is the only one of its image; among others the curve differs")
    elif loss.normalizer == "images":
        notes.append("the anchor is one that was picked, and the only one")
    if any(True for _ in loss.buffers()):
        notes.append("as at the first step; it changes with what was seen in training")
    return notes
