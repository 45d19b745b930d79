"""From our tensors to those of another framework: the way back, written as plain loops."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detector.convert.coco import CATEGORY_IDS
from detector.convert.names import names_there
from detector.convert.sources import SOURCES, SourceName

UNUSED = 7.0
"""In the outputs of theirs that ours does not have."""

DEVIATIONS_OF_BGR = (57.375, 57.12, 58.395)


def theirs_of(source: SourceName, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that a file of theirs would hold, of our model with the classes of COCO."""
    name_there = names_there(SOURCES[source].rules, ours)
    is_torchvision = source.startswith("torchvision")
    found = {}
    for name, value in ours.items():
        if name.startswith("head.class_outputs."):
            places = CATEGORY_IDS if is_torchvision else tuple(range(80))
            value = outputs_there(source, value, 91 if is_torchvision else 80, places)
        elif name.startswith("head.box_outputs."):
            value = outputs_there(source, value, 4, (0, 1, 2, 3))
        elif name == "backbone.conv1.weight" and source in ("detectron2", "mmdet_caffe"):
            value = unfold_colours(value)
        found[name_there[name]] = value.clone()
    return found


def outputs_there(
    source: SourceName, value: Tensor, num_there: int, places: tuple[int, ...]
) -> Tensor:
    """Our channel (scale, ratio, output k) goes to their anchor and their output places[k]."""
    num_ours = len(places)
    theirs = torch.full((9 * num_there, *value.shape[1:]), UNUSED)
    for scale in range(3):
        for ratio in range(3):
            ours_first = (scale * 3 + ratio) * num_ours
            anchor = scale * 3 + ratio if source == "detectron2" else ratio * 3 + scale
            for k, place in enumerate(places):
                theirs[anchor * num_there + place] = value[ours_first + k]
    return theirs


def unfold_colours(value: Tensor) -> Tensor:
    """(C, 3, h, w) for BGR that is not divided by its deviation."""
    channels = [value[:, 2 - i] / std for i, std in enumerate(DEVIATIONS_OF_BGR)]
    return torch.stack(channels, 1)
