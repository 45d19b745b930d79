"""Training that starts from weights: of a checkpoint, or of a backbone trained on ImageNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from detector.config import Config, from_plain
from detector.config.registry import LOSSES
from detector.config.schema import require
from detector.convert.files import read_torch
from detector.errors import ConfigError
from detector.layouts import Layout, Rated
from detector.models.backbones.torchvision import CLASSIFIERS
from detector.models.detector import Detector
from detector.runs import checkpoint, entries
from detector.runs.checkpoint import weights_to_evaluate

CLASS_LAYER = "head.class_outputs."
COUNTER = ".num_batches_tracked"
"""Of live batch norm; says nothing about what a layer computes."""

FIRST_LAYERS = {"conv1.weight", "features.0.0.weight", "stem.0.weight"}
"""Of torchvision's ResNets; MobileNets, EfficientNets and ConvNeXts; RegNets."""

MAX_NAMED = 3
"""Tensors that a message names for each fault."""

NOT_OF_THE_WEIGHTS = ("backbone.weights", "backbone.frozen_stages")
"""Keys of a model that may differ from those of the weights and mean nothing for them."""


@dataclass(frozen=True)
class Given:
    """weights: by the names of our model. reason: why the class layer is made anew; None: it is
    kept. notes: what else to say."""

    weights: Mapping[str, Tensor]
    reason: str | None
    notes: tuple[str, ...] = ()


def start_from(
    path: str, model: Detector, config: Config, layout: Layout, classes: tuple[str, ...]
) -> str:
    """Puts the weights of a file into the model; a table of what was loaded and what was not.

    The class layer stays as it was made where the file has none, or one for other classes or
    another layout. Everything else that the file is about has to fit: raises ConfigError, naming
    tensors, where it does not.
    """
    require(Path(path).is_file(), f"weights: {path} is not a file")
    content = read_torch(Path(path))
    if isinstance(content, Mapping) and "format_version" in content:
        saved = checkpoint.load(path)
        entries.require(saved, entries.EVALUATED, f"weights: {path}")
        given = of_checkpoint(saved, config, layout, classes)
    else:
        given = of_backbone(content, path)
    wanted = model.state_dict()
    weights = {
        name: value
        for name, value in given.weights.items()
        if not (name.startswith(CLASS_LAYER) and given.reason) and not _is_spare(name, wanted)
    }
    about = {name for name in wanted if _part(name) in {_part(key) for key in weights}}
    try:
        require_fit(weights, {name: wanted[name] for name in wanted if name in about}, path)
    except ConfigError as error:
        made_with = "; ".join(given.notes)
        raise ConfigError(f"{error}; {made_with}" if made_with else str(error)) from None
    model.load_state_dict(weights, strict=False)
    return table(path, wanted, weights, given)


def of_checkpoint(
    saved: dict[str, Any], config: Config, layout: Layout, classes: tuple[str, ...]
) -> Given:
    """The weights of a checkpoint, and whether its class layer means the same as ours."""
    before = from_plain(saved["config"])
    reason = None
    if tuple(saved["classes"]) != classes:
        reason = f"for {len(classes)} classes; those of the file are {len(saved['classes'])} others"
    elif layout_name(before.loss.name, before.rating) != layout.name:
        reason = f"for loss={config.loss.name}, whose outputs mean something else"
    return Given(weights_to_evaluate(saved), reason, tuple(differences(before, config)))


def layout_name(loss: str, rating: str | None) -> str | None:
    """The layout of a loss and a rating; None for a loss that is not known here."""
    if loss not in LOSSES.names:
        return None
    layout = LOSSES.get(loss).layout_class(1)
    return layout.name if rating is None else Rated(layout).name


def of_backbone(content: Any, path: str) -> Given:
    """The weights of a classifier of torchvision's, without its last layer. Raises ConfigError."""
    is_state = isinstance(content, Mapping) and all(isinstance(v, Tensor) for v in content.values())
    require(
        is_state and not FIRST_LAYERS.isdisjoint(content),
        f"weights: {path} is neither a checkpoint of this project nor a backbone of torchvision's; "
        "timm's are named by backbone.weights, and those of other frameworks are converted first, "
        "with tools/convert.py",
    )
    weights = {f"backbone.{k}": v for k, v in content.items() if not k.startswith(CLASSIFIERS)}
    return Given(weights, "the file has none")


def differences(before: Config, now: Config) -> list[str]:
    """What the model of the weights was and ours is not: none of it changes a shape, perhaps, but
    all of it changes what the weights mean."""
    pairs = [(_keys_of_model(config)) for config in (before, now)]
    return [
        f"differs: {key} was {pairs[0][key]}, is {pairs[1][key]}"
        for key in pairs[0]
        if key in pairs[1] and pairs[0][key] != pairs[1][key]
    ]


def _keys_of_model(config: Config) -> dict[str, Any]:
    """Dotted keys of what makes up the model; what follows it is not of the weights."""
    parts = asdict(config.model)
    parts.pop("postprocess")
    found = {f"model.{part}.{k}": v for part, node in parts.items() for k, v in node.items()}
    for part, plug in (("backbone", config.backbone), ("neck", config.neck)):
        found |= {f"{part}.{k}": v for k, v in plug.options.items()}
    return {key: value for key, value in found.items() if key not in NOT_OF_THE_WEIGHTS}


def require_fit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str) -> None:
    """Raises ConfigError, naming tensors, unless each wanted one is given in its shape, and no
    other. The class layer may be missing."""
    faults = {
        "missing": [
            name
            for name in wanted
            if name not in given and not name.startswith(CLASS_LAYER) and COUNTER not in name
        ],
        "unknown": [name for name in given if name not in wanted],
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted
            if name in given and given[name].shape != wanted[name].shape
        ],
    }
    parts = [
        f"{len(names)} {fault} ({', '.join(names[:MAX_NAMED])}"
        f"{', ...' if len(names) > MAX_NAMED else ''})"
        for fault, names in faults.items()
        if names
    ]
    if parts:
        raise ConfigError(
            f"weights: {path}: tensors do not fit: {'; '.join(parts)}; the model has to be the one "
            "they were trained with (model=, backbone=; backbone.norm=frozen_batch for ImageNet's)"
        )


def table(
    path: str, wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], given: Given
) -> str:
    """A line for each part of the model: its tensors, and how many of them were loaded."""
    parts = dict.fromkeys(_part(name) for name in wanted)
    rows = [f"{'weights':<20} {'tensors':>7} {'loaded':>7}  {path}"]
    for part in parts:
        names = [name for name in wanted if _part(name) == part and COUNTER not in name]
        loaded = sum(name in weights for name in names)
        made_anew = CLASS_LAYER.startswith(f"{part}.") and given.reason
        reason = f"made anew: {given.reason}" if made_anew else "made anew"
        rows.append(f"{part:<20} {len(names):>7} {loaded:>7}  {'' if loaded else reason}".rstrip())
    return "\n".join([*rows, *given.notes])


def _part(name: str) -> str:
    """backbone, fpn, head.class_tower, head.class_outputs, ..."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "head" else parts[0]


def _is_spare(name: str, wanted: Mapping[str, Tensor]) -> bool:
    return name.endswith(COUNTER) and name not in wanted
