"""The contract that is run on a stranger's part, on our own and on broken ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from detector.config.registry import LOSSES, REGISTRIES
from detector.config.schema import Plug
from detector.errors import ConfigError
from detector.laboratory import contract
from detector.losses.focal import FocalLoss
from detector.models.backbones.base import Backbone

OURS = [
    (kind, name)
    for kind in ("loss", "box_loss", "matcher", "backbone")
    for name in REGISTRIES[kind].names
]


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_every_part_of_ours_holds_it(kind: str, name: str) -> None:
    torch.manual_seed(0)
    findings = contract.check(kind, name)
    assert len(findings) == 1 + len(contract.RULES[kind])
    assert [(f.rule, f.fault) for f in findings if f.fault is not None] == []


def changed(change: Callable[[Any], Any]) -> type[FocalLoss]:
    """A focal loss whose terms are something else."""

    class Changed(FocalLoss):
        def forward(self, predictions: Any, matches: Any) -> Any:
            return change(super().forward(predictions, matches))

    return Changed


class NotDefinedAtNothing(FocalLoss):
    def forward(self, predictions: Any, matches: Any) -> Any:
        terms = super().forward(predictions, matches)
        return {key: term / matches.foreground.sum() for key, term in terms.items()}


class AllAnchors(FocalLoss):
    def forward(self, predictions: Any, matches: Any) -> Any:
        return {"class": predictions.logits.square()}


class ByPlace(FocalLoss):
    def forward(self, predictions: Any, matches: Any) -> Any:
        terms = super().forward(predictions, matches)
        weight = torch.arange(matches.labels.shape[1])[:, None]
        return {key: term * weight for key, term in terms.items()}


@pytest.mark.parametrize(
    ("loss", "rule", "fault"),
    [
        (changed(lambda terms: terms["class"]), "forward gives", "forward gave a tensor of shape"),
        (
            changed(lambda terms: {"class": terms["class"].sum()}),
            "forward gives",
            r"the term 'class' is a tensor of shape \(\), \(N, A, K\) = ",
        ),
        (
            changed(lambda terms: {"box": terms["class"]}),
            "forward gives",
            "the term 'box' has the name of a box loss's",
        ),
        (changed(lambda terms: {}), "forward gives", "forward gave dict {}"),
        (
            changed(lambda terms: {k: t.detach() for k, t in terms.items()}),
            "the loss is finite",
            "does not require grad",
        ),
        (NotDefinedAtNothing, "images without objects", "the loss is (nan|inf)"),
        (AllAnchors, "neutral anchors", "of them have a gradient"),
        (ByPlace, "the order of anchors", "`separable = False` says so"),
    ],
)
def test_what_is_broken_is_told_by_its_rule(
    monkeypatch: pytest.MonkeyPatch, loss: type[FocalLoss], rule: str, fault: str
) -> None:
    monkeypatch.setitem(LOSSES._classes, "broken", loss)
    found = [f for f in contract.check("loss", "broken") if f.rule.startswith(rule)]
    assert found[0].fault is not None
    with pytest.raises(AssertionError, match=fault):
        raise AssertionError(found[0].fault)


def test_a_backbone_without_channels_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(Backbone):
        def forward(self, images: Any) -> Any:
            return images, images, images

    monkeypatch.setitem(REGISTRIES["backbone"]._classes, "bare", Bare)
    fault = contract.check("backbone", "bare")[1].fault
    assert fault is not None
    assert fault.startswith("backbone: Bare has out_channels None, its constructor has to set")
    Bare.out_channels = (3, 3, 3)
    fault = contract.check("backbone", "bare")[1].fault
    assert fault is not None
    assert fault.startswith("they are [(3, 64, 96), ")


def test_a_part_that_cannot_be_built_is_told_with_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(nn.Module):
        def __init__(self, num_classes: int) -> None:
            raise ZeroDivisionError("of mine")

    monkeypatch.setitem(LOSSES._classes, "failing", Failing)
    (finding,) = contract.check("loss", "failing")
    assert finding.fault is not None
    assert finding.fault.startswith("ZeroDivisionError: of mine (")
    assert "test_contract.py, line " in finding.fault


def test_a_module_that_registers_nothing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^json: registers no part; a class under a decorator"):
        contract.registered(["json"])


def test_the_rules_are_those_of_known_kinds() -> None:
    assert contract.RULES.keys() <= REGISTRIES.keys()
    assert LOSSES.build(Plug("focal", {}), 3).num_classes == 3
