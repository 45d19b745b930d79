"""Names, orders and colours there and back, and what does not fit is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detector.convert.names import names_there
from detector.convert.sources import SOURCES, SourceName, to_ours
from detector.convert.tensors import fold_colours, ratio_outer_order
from detector.errors import ConfigError
from detector.models.backbones.base import PIXEL_MEAN, PIXEL_STD
from tests.convert.foreign import empty
from tests.convert.inverse import UNUSED, theirs_of

State = dict[str, Tensor]


@pytest.fixture(scope="module", params=get_args(SourceName))
def case(request: pytest.FixtureRequest) -> tuple[Any, State, State]:
    """A source, random weights of ours and the same as theirs."""
    model, _ = empty(request.param, "backbone=resnet18")
    generator = torch.Generator().manual_seed(0)
    ours = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
    }
    return request.param, ours, theirs_of(request.param, ours)


def test_maps_are_invertible(case: tuple[Any, State, State]) -> None:
    source, ours, theirs = case
    found = to_ours(SOURCES[source], theirs, ours, "file")
    assert found.keys() == ours.keys()
    for name, value in ours.items():
        if name == "backbone.conv1.weight":
            # Divided by a deviation and multiplied again: two roundings of float32.
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=0)
        else:
            assert torch.equal(found[name], value), name


def test_every_name_has_one_there(case: tuple[Any, State, State]) -> None:
    source, ours, theirs = case
    there = names_there(SOURCES[source].rules, ours)
    back = {name: ours_name for ours_name, name in there.items()}
    assert list(back.values()) == list(ours)
    assert back.keys() == theirs.keys()


def test_no_output_of_an_unused_id_remains(case: tuple[Any, State, State]) -> None:
    source, ours, theirs = case
    num_unused = sum(int((x == UNUSED).sum()) for x in theirs.values() if len(x) == 9 * 91)
    assert (num_unused > 0) == source.startswith("torchvision")
    found = to_ours(SOURCES[source], theirs, ours, "file")
    assert all(not (value == UNUSED).any() for value in found.values())


def test_another_order_of_anchors_is_another_model(case: tuple[Any, State, State]) -> None:
    """It fits in name and shape, so that only numbers tell."""
    source, ours, theirs = case
    wrong = replace(SOURCES[source], ratio_is_outer=not SOURCES[source].ratio_is_outer)
    found = to_ours(wrong, theirs, ours, "file")
    changed = {
        n for n in ours if n != "backbone.conv1.weight" and not torch.equal(found[n], ours[n])
    }
    layers = ("class_outputs", "box_outputs")
    assert changed == {f"head.{layer}.{part}" for layer in layers for part in ("weight", "bias")}


def test_the_order_of_torchvision_is_known() -> None:
    assert ratio_outer_order(3, 3) == [0, 3, 6, 1, 4, 7, 2, 5, 8]
    assert ratio_outer_order(2, 3) == [0, 2, 4, 1, 3, 5]


def test_folded_colours_give_the_same_features() -> None:
    """Theirs sees BGR less its mean, ours RGB less its mean and divided, with padding 0 in both."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 3, 7, 7, generator=generator, dtype=torch.float64)
    rgb = torch.rand(1, 3, 21, 26, generator=generator, dtype=torch.float64) * 255
    mean, std = (
        torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (PIXEL_MEAN, PIXEL_STD)
    )
    theirs = F.conv2d((rgb - mean)[:, [2, 1, 0]], weight, stride=2, padding=3)
    ours = F.conv2d((rgb - mean) / std, fold_colours(weight), stride=2, padding=3)
    assert float(theirs.abs().max()) > 1000
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


class TestRefusals:
    def test_a_missing_tensor_is_named(self, case: tuple[Any, State, State]) -> None:
        source, ours, theirs = case
        name = next(name for name in theirs if "p6" in name or "fpn_convs.3" in name)
        rest = {n: value for n, value in theirs.items() if n != name}
        with pytest.raises(ConfigError) as error:
            to_ours(SOURCES[source], rest, ours, "some/file.pth")
        message = f"weights: some/file.pth: tensors do not fit: 1 missing ({name})"
        assert str(error.value) == message

    def test_an_unknown_tensor_is_named(self, case: tuple[Any, State, State]) -> None:
        source, ours, theirs = case
        more = theirs | {"mask_head.weight": torch.zeros(1)}
        with pytest.raises(ConfigError, match=r"do not fit: 1 unknown \(mask_head\.weight\)$"):
            to_ours(SOURCES[source], more, ours, "file")

    def test_another_shape_is_named_with_the_one_needed(
        self, case: tuple[Any, State, State]
    ) -> None:
        source, ours, theirs = case
        name = names_there(SOURCES[source].rules, ours)["head.class_outputs.bias"]
        other = theirs | {name: torch.zeros(18)}
        wanted = 819 if source.startswith("torchvision") else 720
        with pytest.raises(ConfigError) as error:
            to_ours(SOURCES[source], other, ours, "file")
        assert f"1 of another shape ({name} (18,) instead of ({wanted},))" in str(error.value)

    def test_the_file_of_another_framework_is_refused(self, case: tuple[Any, State, State]) -> None:
        source, _, theirs = case
        other: Any = "mmdet" if source == "detectron2" else "detectron2"
        wanted = empty(other, "backbone=resnet18")[0].state_dict()
        with pytest.raises(ConfigError, match=r"missing.*unknown"):
            to_ours(SOURCES[other], theirs, wanted, "file")

    def test_what_is_no_weight_is_passed_over(self, case: tuple[Any, State, State]) -> None:
        source, ours, theirs = case
        counters = {"backbone.body.bn1.num_batches_tracked": torch.tensor(5)}
        if source == "detectron2":
            counters |= {name: torch.zeros(3, 1, 1) for name in ("pixel_mean", "pixel_std")}
            counters["anchor_generator.cell_anchors.0"] = torch.zeros(9, 4)
        assert to_ours(SOURCES[source], theirs | counters, ours, "file").keys() == ours.keys()
