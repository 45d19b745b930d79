"""The parts that this project ships, and therefore documents.

A part that somebody adds needs its file and its yaml and nothing else, as CONTRIBUTING.md says: the
contract tests and those of the configs take it up by themselves, by the registry. Its section, its
plot, its rows in tables and what is listed of its nature in a test are owed by the parts below
alone. One that this project adds itself gets its name here, and the tests then ask for the rest.
"""

from __future__ import annotations

SHIPPED: dict[str, tuple[str, ...]] = {
    "loss": (
        "alrp",
        "ap",
        "balanced_cross_entropy",
        "cross_entropy",
        "distributional_ranking",
        "equalized_focal",
        "focal",
        "focal_star",
        "ghm",
        "mal",
        "ohem",
        "quality_focal",
        "random_sampling",
        "rank_sort",
        "sample_dependent_focal",
        "softmax_cross_entropy",
        "softmax_focal",
        "ssd",
        "varifocal",
        "yolo",
        "yolo_objectness",
        "yolo_v1",
    ),
    "box_loss": (
        "balanced_l1",
        "ciou",
        "diou",
        "eiou",
        "giou",
        "iou",
        "l1",
        "nwd",
        "smooth_l1",
        "yolo",
    ),
    "matcher": ("atss", "dynamic_soft", "retinanet", "ssd", "task_aligned", "yolo_cell"),
    "backbone": (
        "convnext_tiny",
        "efficientnet",
        "mobilenet_large",
        "mobilenet_small",
        "mobilenet_v2",
        "regnet",
        "resnet101",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnext50",
        "timm",
    ),
    "neck": ("bifpn", "fpn", "pafpn"),
    "data": ("auto", "coco", "generated", "held_out", "voc", "yolo"),
}
"""Sorted names of the yaml files by kind of part; those of losses and matchers are registered."""


def is_a_strangers(kind: str, name: str) -> bool:
    """Whether a yaml, or a registered name, is of a part that this project does not ship."""
    return kind in SHIPPED and name not in SHIPPED[kind]
