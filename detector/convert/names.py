"""What a tensor of this project is called in other frameworks.

A rule is a pattern of our name and the name that it has there. The first one that fits the whole
name holds, each name has exactly one, and no two of our names have the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Rule = tuple[str, str]

MAX_CONVS = 16
"""Convolutions of a tower for which there are rules."""


def names_there(rules: Iterable[Rule], names: Iterable[str]) -> dict[str, str]:
    """Our name -> theirs, for each of our names."""
    compiled = [(re.compile(pattern), template) for pattern, template in rules]

    def translate(name: str) -> str:
        for pattern, template in compiled:
            match = pattern.fullmatch(name)
            if match:
                return match.expand(template)
        raise AssertionError(f"{name}: no rule")

    found = {name: translate(name) for name in names}
    assert len(set(found.values())) == len(found), "two tensors have the same name there"
    return found


def tower_rules(ours: str, theirs: str, *, step: int, parts: int = 1) -> list[Rule]:
    """Rules of a tower of the head, in which convolution i is module i * step.

    theirs: with {i} for the number of the convolution, {n} for our module, {part} for 0, or 1 for
    the norm after it.
    """
    return [
        (
            rf"head\.{ours}\.{i * step + part}\.(\w+)",
            theirs.format(i=i, n=i * step + part, part=part) + r".\1",
        )
        for i in range(MAX_CONVS)
        for part in range(parts)
    ]


def torchvision_rules(*, has_norm: bool) -> list[Rule]:
    """torchvision's RetinaNet. has_norm: its towers have group norm (version 2)."""
    head, step = r"head.{}_head.conv.{{i}}.{{part}}", 3 if has_norm else 2
    towers = [("class_tower", "classification"), ("box_tower", "regression")]
    return [
        (r"backbone\.(.+)", r"backbone.body.\1"),
        (r"fpn\.lateral\.(\d)\.(\w+)", r"backbone.fpn.inner_blocks.\1.0.\2"),
        (r"fpn\.output\.(\d)\.(\w+)", r"backbone.fpn.layer_blocks.\1.0.\2"),
        (r"fpn\.(p[67])\.(\w+)", r"backbone.fpn.extra_blocks.\1.\2"),
        *(
            rule
            for ours, theirs in towers
            for rule in tower_rules(ours, head.format(theirs), step=step, parts=step - 1)
        ),
        (r"head\.class_outputs\.(\w+)", r"head.classification_head.cls_logits.\1"),
        (r"head\.box_outputs\.(\w+)", r"head.regression_head.bbox_reg.\1"),
    ]


def detectron2_rules() -> list[Rule]:
    """detectron2's RetinaNet: stages res2 to res5, a norm inside its convolution."""
    body = "backbone.bottom_up"
    rules = [
        (r"backbone\.conv1\.(\w+)", rf"{body}.stem.conv1.\1"),
        (r"backbone\.bn1\.(\w+)", rf"{body}.stem.conv1.norm.\1"),
    ]
    for layer in range(1, 5):
        ours, theirs = rf"backbone\.layer{layer}\.(\d+)", rf"{body}.res{layer + 1}.\1"
        rules += [
            (rf"{ours}\.(conv\d)\.(\w+)", rf"{theirs}.\2.\3"),
            (rf"{ours}\.bn(\d)\.(\w+)", rf"{theirs}.conv\2.norm.\3"),
            (rf"{ours}\.downsample\.0\.(\w+)", rf"{theirs}.shortcut.\2"),
            (rf"{ours}\.downsample\.1\.(\w+)", rf"{theirs}.shortcut.norm.\2"),
        ]
    for i in range(3):
        rules += [
            (rf"fpn\.lateral\.{i}\.(\w+)", rf"backbone.fpn_lateral{i + 3}.\1"),
            (rf"fpn\.output\.{i}\.(\w+)", rf"backbone.fpn_output{i + 3}.\1"),
        ]
    return [
        *rules,
        (r"fpn\.(p[67])\.(\w+)", r"backbone.top_block.\1.\2"),
        *tower_rules("class_tower", "head.cls_subnet.{n}", step=2),
        *tower_rules("box_tower", "head.bbox_subnet.{n}", step=2),
        (r"head\.class_outputs\.(\w+)", r"head.cls_score.\1"),
        (r"head\.box_outputs\.(\w+)", r"head.bbox_pred.\1"),
    ]


def mmdet_rules() -> list[Rule]:
    """mmdetection's RetinaNet: P6 and P7 stand among the convolutions of the pyramid."""
    return [
        (r"backbone\.(.+)", r"backbone.\1"),
        (r"fpn\.lateral\.(\d)\.(\w+)", r"neck.lateral_convs.\1.conv.\2"),
        (r"fpn\.output\.(\d)\.(\w+)", r"neck.fpn_convs.\1.conv.\2"),
        (r"fpn\.p6\.(\w+)", r"neck.fpn_convs.3.conv.\1"),
        (r"fpn\.p7\.(\w+)", r"neck.fpn_convs.4.conv.\1"),
        *tower_rules("class_tower", "bbox_head.cls_convs.{i}.conv", step=2),
        *tower_rules("box_tower", "bbox_head.reg_convs.{i}.conv", step=2),
        (r"head\.class_outputs\.(\w+)", r"bbox_head.retina_cls.\1"),
        (r"head\.box_outputs\.(\w+)", r"bbox_head.retina_reg.\1"),
    ]


def present_torchvision_name(name: str) -> str:
    """The name that torchvision gives now to what it has called `name` before."""
    name = re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.(\w+)$", r"\1.\2.0.\3", name)
    match = re.fullmatch(r"(head\.\w+_head\.conv)\.(\d+)\.(\w+)", name)
    return f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}" if match else name


def present_mmdet_name(name: str) -> str:
    """The same of mmdetection, whose convolutions were not in a module of their own before."""
    return re.sub(r"((?:lateral|fpn|cls|reg)_convs\.\d)\.(\w+)$", r"\1.conv.\2", name)
