"""What every part has to hold, run on a part of one's own: `detector check_plugin MODULE`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from detector.config.model import AnchorConfig, CoderConfig
from detector.config.registry import REGISTRIES, import_plugins
from detector.config.schema import Plug
from detector.criterion.terms import require_box_terms, require_class_terms
from detector.errors import ConfigError, UserError
from detector.losses.base import ClassLoss
from detector.matchers.base import Matcher
from detector.models.anchors import AnchorGenerator
from detector.models.backbones.base import require_channels
from detector.models.coder import build_coder
from detector.structures import BACKGROUND, IGNORE, Anchors, Matches, Predictions, Targets

CLASSES = 3
SIDE = 64
"""Pixels of the images that are made up."""

COUNTS = (3, 0, 1)
"""Objects of them: an image without any is legal."""


@dataclass(frozen=True)
class Finding:
    """kind, name: of the part. rule: what has to hold. fault: how it does not, or None."""

    kind: str
    name: str
    rule: str
    fault: str | None


def registered(modules: Iterable[str]) -> list[tuple[str, str]]:
    """(kind, name) of what the modules register. Raises ConfigError for none."""
    modules = list(modules)
    before = {kind: set(registry.names) for kind, registry in REGISTRIES.items()}
    import_plugins(modules)
    found = [
        (kind, name)
        for kind, registry in REGISTRIES.items()
        for name in registry.names
        if name not in before[kind]
    ]
    if not found:
        kinds = ", ".join(REGISTRIES)
        raise ConfigError(
            f"{', '.join(modules)}: registers no part; a class under a decorator such as "
            f'@LOSSES.register("mine") is one (kinds: {kinds})'
        )
    return found


def check(kind: str, name: str) -> list[Finding]:
    """A finding for each rule that there is for that kind of part; building it is one of them."""
    context = (CLASSES,) if kind == "loss" else ()
    try:
        part = REGISTRIES[kind].build(Plug(name, {}), *context)
    except Exception as error:
        return [Finding(kind, name, "can be built with its defaults", _in_words(error))]
    findings = [Finding(kind, name, "can be built with its defaults", None)]
    for rule, holds in RULES.get(kind, {}).items():
        try:
            fault = holds(name, part)
        except Exception as error:  # a stranger's code: that it fails is what is to be told
            fault = _in_words(error)
        findings.append(Finding(kind, name, rule, fault))
    return findings


def _in_words(error: Exception) -> str:
    """An error in one line, with the line of the stranger's code where it was raised."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, UserError):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({last.filename}, line {last.lineno})"


def made_up(counts: Iterable[int] = COUNTS, seed: int = 0) -> tuple[Anchors, Targets]:
    """Anchors and random objects of images of `SIDE` pixels."""
    generator = torch.Generator().manual_seed(seed)
    boxes, labels = [], []
    for count in counts:
        centre = torch.rand(count, 2, generator=generator) * (SIDE - 24) + 12
        half = 6 + 6 * torch.rand(count, 2, generator=generator)
        boxes.append(torch.cat([centre - half, centre + half], -1))
        labels.append(torch.randint(CLASSES, (count,), generator=generator))
    targets = Targets.pack(boxes, labels, image_sizes=[(SIDE, SIDE)] * len(boxes))
    return AnchorGenerator(AnchorConfig()).for_image(SIDE, SIDE), targets


def setting(
    outputs: int, counts: Iterable[int] = COUNTS, dtype: torch.dtype = torch.float32
) -> tuple[Predictions, Matches]:
    """Random predictions with D outputs for each anchor, and matches of which some are neutral."""
    anchors, targets = made_up(counts)
    matches = REGISTRIES["matcher"].build(Plug("retinanet", {}))(anchors, targets, None)
    generator = torch.Generator().manual_seed(1)
    n, a = matches.labels.shape
    logits = (2 * torch.randn(n, a, outputs, generator=generator)).to(dtype).requires_grad_()
    deltas = (0.1 * torch.randn(n, a, 4, generator=generator)).to(dtype).requires_grad_()
    return Predictions(logits, deltas, anchors, build_coder(CoderConfig())), matches


def totals(terms: dict[str, Tensor]) -> Tensor:
    """(N,) sums of all terms of each image."""
    per_image = [term.flatten(1).sum(1) if term.dim() > 1 else term for term in terms.values()]
    return torch.stack(per_image).sum(0)


def _layout(_: str, loss: ClassLoss) -> str | None:
    layout = loss.layout
    predictions, _matches = setting(layout.num_outputs)
    scores = layout.scores(predictions.logits)
    n, a, _outputs = predictions.logits.shape
    if tuple(scores.shape) != (n, a, CLASSES) or not ((scores >= 0) & (scores <= 1)).all():
        span = f"[{scores.min():g}, {scores.max():g}]"
        return f"scores have shape {tuple(scores.shape)} and lie in {span}"
    foreground = layout.foreground(layout.initial_bias(0.01))
    is_prior = torch.allclose(foreground, torch.full_like(foreground, 0.01), rtol=1e-4)
    return None if is_prior else f"at the initial bias of 0.01 it is {foreground.flatten()[0]:g}"


def _class_terms(name: str, loss: ClassLoss) -> str | None:
    predictions, matches = setting(loss.layout.num_outputs)
    require_class_terms(name, loss(predictions, matches), matches, CLASSES)
    return None


def _gradient(name: str, loss: Any) -> str | None:
    outputs = loss.layout.num_outputs if isinstance(loss, ClassLoss) else CLASSES
    predictions, matches = setting(outputs)
    total = totals(loss(predictions, matches)).sum()
    total.backward()
    of = predictions.logits if isinstance(loss, ClassLoss) else predictions.deltas
    if of.grad is None or not of.grad.any():
        return "no gradient reaches the outputs"
    return None if total.isfinite() and of.grad.isfinite().all() else f"the loss is {total:g}"


def _empty(_: str, loss: ClassLoss) -> str | None:
    predictions, matches = setting(loss.layout.num_outputs, (0, 0))
    total = totals(loss(predictions, matches)).sum()
    return None if total.isfinite() else f"the loss is {total:g}"


def _huge(_: str, loss: ClassLoss) -> str | None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        predictions, matches = setting(loss.layout.num_outputs, dtype=dtype)
        logits = (predictions.logits.detach().sign() * 200).requires_grad_()
        total = totals(loss(replace(predictions, logits=logits), matches)).sum()
        total.backward()
        if not total.isfinite() or logits.grad is None or not logits.grad.isfinite().all():
            return (
                f"with logits of 200 in {dtype} the loss is {total:g}, or its gradient is no number"
            )
    return None


def _neutral(_: str, loss: ClassLoss) -> str | None:
    predictions, matches = setting(loss.layout.num_outputs)
    neutral = matches.labels.clone()
    neutral[:, ::7] = IGNORE
    matches = replace(matches, labels=neutral, objects=matches.objects.masked_fill(neutral < 0, -1))
    totals(loss(predictions, matches)).sum().backward()
    assert predictions.logits.grad is not None
    number = int(predictions.logits.grad[neutral == IGNORE].any(-1).sum())
    return f"{number} of them have a gradient" if number else None


def _order(_: str, loss: ClassLoss) -> str | None:
    if not loss.separable:
        return None
    predictions, matches = setting(loss.layout.num_outputs, dtype=torch.float64)
    whole = totals(loss(predictions, matches))
    order = torch.randperm(matches.labels.shape[1], generator=torch.Generator().manual_seed(2))
    anchors = predictions.anchors
    moved = Anchors(anchors.boxes[order], anchors.strides[order], (len(order),))
    shuffled = Predictions(
        predictions.logits[:, order], predictions.deltas[:, order], moved, predictions.coder
    )
    other = Matches(
        matches.labels[:, order],
        matches.boxes[:, order],
        matches.objects[:, order],
        moved,
        matches.targets,
    )
    # Sums in another order: rounding of float64 only.
    is_same = torch.allclose(totals(loss(shuffled, other)), whole, rtol=1e-10, atol=1e-10)
    return None if is_same else "it does; `separable = False` says so where it has to"


def _box_terms(name: str, loss: Any) -> str | None:
    predictions, matches = setting(CLASSES)
    terms = loss(predictions, matches)
    require_box_terms(name, terms, matches)
    others = [float(term.detach()[~matches.foreground].abs().max()) for term in terms.values()]
    return f"it is {max(others):g} at one without an object" if max(others) else None


def _matches(_: str, matcher: Matcher) -> str | None:
    anchors, targets = made_up()
    predictions, _matches = setting(CLASSES)
    found = matcher(anchors, targets, predictions)
    if not isinstance(found, Matches):
        return f"it gave {type(found).__name__}, `Matches` are needed"
    shape = (len(COUNTS), len(anchors.boxes))
    if tuple(found.labels.shape) != shape:
        return f"labels have the shape {tuple(found.labels.shape)}, {shape} is needed"
    if not found.foreground.any():
        return "no anchor has an object"
    for i, a in found.foreground.nonzero().tolist():
        if not torch.equal(found.boxes[i, a], targets.boxes[i, found.objects[i, a]]):
            return f"image {i}, anchor {a}: its box is not that of its object"
    return None


def _no_objects(_: str, matcher: Matcher) -> str | None:
    anchors, targets = made_up((0, 0))
    predictions, _matches = setting(CLASSES, (0, 0))
    labels = matcher(anchors, targets, predictions).labels
    return None if (labels == BACKGROUND).all() else "some anchors are no background"


def _maps(_: str, backbone: Any) -> str | None:
    channels = require_channels(backbone)
    maps = backbone(torch.zeros(1, 3, 64, 96))
    wanted = [(c, 64 // s, 96 // s) for c, s in zip(channels, (8, 16, 32), strict=True)]
    given = [tuple(x.shape[1:]) for x in maps]
    return None if given == wanted else f"they are {given}, {wanted} are needed (C, H / s, W / s)"


Rule = Callable[[str, Any], str | None]

RULES: dict[str, dict[str, Rule]] = {
    "loss": {
        "its layout's scores are probabilities (N, A, K), its foreground the prior": _layout,
        "forward gives named terms (N, A, K), (N, A) or (N,)": _class_terms,
        "the loss is finite and has a gradient": _gradient,
        "images without objects are legal": _empty,
        "huge logits of any precision stay finite": _huge,
        "neutral anchors have no gradient": _neutral,
        "the order of anchors does not matter": _order,
    },
    "box_loss": {
        "forward gives terms (N, A), 0 where an anchor has no object": _box_terms,
        "the loss is finite and has a gradient": _gradient,
    },
    "matcher": {
        "an anchor with an object carries its label and box": _matches,
        "images without objects are all background": _no_objects,
    },
    "backbone": {"three maps of `out_channels` at strides 8, 16 and 32": _maps},
}
"""By kind of part; the other kinds are built, and that is all that is looked at."""
