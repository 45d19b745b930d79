"""RetinaNets of other frameworks: their tensors as ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from detector.convert import names
from detector.convert.coco import CATEGORY_IDS, NUM_IDS
from detector.convert.tensors import choose_outputs, fold_colours, ratio_outer_order
from detector.errors import ConfigError

SourceName = Literal["torchvision_v1", "torchvision_v2", "detectron2", "mmdet", "mmdet_caffe"]

NUM_SCALES = NUM_RATIOS = 3
"""Of all five, which have the nine anchors of the paper."""

CONTIGUOUS = tuple(range(len(CATEGORY_IDS)))

MAX_NAMED = 5
"""Tensors that a message names for each fault."""


@dataclass(frozen=True)
class Source:
    """How a framework's file differs from ours.

    rules: names, see `names.py`. present_name: the spelling of today of an older file's names.
    not_needed: pattern of the names of what is no weight of the model.
    ratio_is_outer: the order of the anchors of a cell. class_outputs: which of their outputs our
    classes are. num_outputs: how many they have. is_bgr: pixels are BGR and not divided.
    """

    rules: list[names.Rule]
    present_name: Callable[[str], str] = str
    not_needed: str = r".*\.num_batches_tracked"
    ratio_is_outer: bool = True
    class_outputs: tuple[int, ...] = CONTIGUOUS
    num_outputs: int = len(CONTIGUOUS)
    is_bgr: bool = False


def torchvision(*, has_norm: bool) -> Source:
    """An output for each id of COCO from 0 to 90."""
    return Source(
        names.torchvision_rules(has_norm=has_norm),
        present_name=str if has_norm else names.present_torchvision_name,
        class_outputs=CATEGORY_IDS,
        num_outputs=NUM_IDS,
    )


SOURCES: dict[SourceName, Source] = {
    "torchvision_v1": torchvision(has_norm=False),
    "torchvision_v2": torchvision(has_norm=True),
    "detectron2": Source(
        names.detectron2_rules(),
        not_needed=r"pixel_mean|pixel_std|anchor_generator\.cell_anchors\.\d|"
        r".*\.num_batches_tracked",
        ratio_is_outer=False,
        is_bgr=True,
    ),
    "mmdet": Source(names.mmdet_rules(), present_name=names.present_mmdet_name),
    "mmdet_caffe": Source(names.mmdet_rules(), present_name=names.present_mmdet_name, is_bgr=True),
}

assert tuple(SOURCES) == get_args(SourceName)


def to_ours(
    source: Source, theirs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str
) -> dict[str, Tensor]:
    """The state dict of our model of `theirs`. wanted: its present one, for names and shapes.

    what: the file, for messages. Raises ConfigError where a tensor is missing, unknown or of
    another shape, and names it.
    """
    given = {source.present_name(name): value for name, value in theirs.items()}
    name_there = names.names_there(source.rules, wanted)
    require_fit(
        source, given, {name_there[n]: shape_there(source, n, wanted[n]) for n in wanted}, what
    )
    return {name: _to_ours(source, name, given[name_there[name]]) for name in wanted}


def shape_there(source: Source, name: str, ours: Tensor) -> tuple[int, ...]:
    """The shape that their tensor has to have."""
    if not name.startswith("head.class_outputs."):
        return tuple(ours.shape)
    return (len(ours) // len(source.class_outputs) * source.num_outputs, *ours.shape[1:])


def require_fit(
    source: Source, given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """Raises ConfigError unless exactly the wanted tensors are given, of these shapes."""
    faults = {
        "missing": [name for name in wanted if name not in given],
        "unknown": [
            name
            for name in given
            if name not in wanted and not re.fullmatch(source.not_needed, name)
        ],
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {shape}"
            for name, shape in wanted.items()
            if name in given and tuple(given[name].shape) != shape
        ],
    }
    parts = [
        f"{len(found)} {fault} ({', '.join(found[:MAX_NAMED])}"
        f"{', ...' if len(found) > MAX_NAMED else ''})"
        for fault, found in faults.items()
        if found
    ]
    if parts:
        raise ConfigError(f"weights: {what}: tensors do not fit: {'; '.join(parts)}")


def _to_ours(source: Source, name: str, tensor: Tensor) -> Tensor:
    """Our tensor of theirs, in float32."""
    tensor = tensor.to(torch.float32)
    num = NUM_SCALES * NUM_RATIOS
    order = ratio_outer_order(NUM_SCALES, NUM_RATIOS) if source.ratio_is_outer else range(num)
    if name.startswith("head.class_outputs."):
        return choose_outputs(tensor, list(order), source.class_outputs)
    if name.startswith("head.box_outputs."):
        return choose_outputs(tensor, list(order), (0, 1, 2, 3))
    return fold_colours(tensor) if name == "backbone.conv1.weight" and source.is_bgr else tensor
