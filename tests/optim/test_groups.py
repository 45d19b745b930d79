"""Groups of parameters: which rate and which decay each parameter has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from detector.errors import ConfigError
from detector.optim.groups import parameter_groups
from detector.optim.optimizers import SGD, AdamW


class Body(nn.Module):
    """Three stages, each a convolution with its bias."""

    def __init__(self, *, tells: bool = True) -> None:
        super().__init__()
        self.stem, self.middle, self.last = (nn.Conv2d(1, 1, 1) for _ in range(3))
        self.tells = tells

    def stage_of(self) -> dict[str, int]:
        names = ("stem", "middle", "last")
        pairs = [(f"{name}.{p}", i) for i, name in enumerate(names) for p in ("weight", "bias")]
        return dict(pairs) if self.tells else {}


def model(**options: Any) -> nn.Module:
    whole = nn.Module()
    whole.backbone = Body(**options)
    whole.head = nn.Sequential(nn.Conv2d(1, 1, 1), nn.GroupNorm(1, 1))
    return whole


def of(groups: list[dict[str, Any]], whole: nn.Module) -> dict[str, tuple[float, float]]:
    """(factor, decay) of each parameter by its name; each is in one group."""
    names = {id(p): name for name, p in whole.named_parameters()}
    pairs = [
        (names[id(p)], (group.get("factor", 1.0), group["weight_decay"]))
        for group in groups
        for p in group["params"]
    ]
    assert len(pairs) == len(names) == len(dict(pairs))
    return dict(pairs)


def test_without_an_option_there_are_the_two_groups_of_always() -> None:
    """Checkpoints name parameters by their place in these groups."""
    whole = model()
    groups = parameter_groups(whole, 0.1)
    assert [set(group) for group in groups] == [{"params", "weight_decay"}] * 2
    parameters = list(whole.parameters())
    assert [id(p) for p in groups[0]["params"]] == [id(p) for p in parameters if p.dim() > 1]
    assert [id(p) for p in groups[1]["params"]] == [id(p) for p in parameters if p.dim() <= 1]


def test_a_factor_is_on_the_backbone_alone() -> None:
    whole = model()
    rates = of(parameter_groups(whole, 0.1, backbone_factor=0.25), whole)
    for name, (factor, decay) in rates.items():
        assert factor == (0.25 if name.startswith("backbone.") else 1.0), name
        assert decay == (0.1 if name.endswith("weight") and name != "head.1.weight" else 0.0), name


def test_a_rate_falls_from_stage_to_stage_towards_the_image() -> None:
    whole = model()
    rates = of(parameter_groups(whole, 0.1, backbone_factor=0.5, layer_decay=0.8), whole)
    # 0.5 * 0.8^(3 - i) for i = 0, 1, 2.
    for name, expected in (("stem", 0.256), ("middle", 0.32), ("last", 0.4)):
        for part in ("weight", "bias"):
            assert rates[f"backbone.{name}.{part}"][0] == pytest.approx(expected), name
    assert rates["head.0.weight"] == (1.0, 0.1)


def test_frozen_parameters_are_in_no_group() -> None:
    whole = model()
    whole.backbone.stem.requires_grad_(False)  # type: ignore[union-attr]
    groups = parameter_groups(whole, 0.1, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == 8
    assert all(group["params"] for group in groups)


def test_a_backbone_without_stages_has_a_factor_but_no_decay_of_rates() -> None:
    whole = model(tells=False)
    rates = of(parameter_groups(whole, 0.0, backbone_factor=0.5), whole)
    assert {factor for name, (factor, _) in rates.items() if "backbone" in name} == {0.5}
    with pytest.raises(ConfigError, match=r"^optim\.layer_decay: 0\.9 given, .*no stages"):
        parameter_groups(whole, 0.0, layer_decay=0.9)


@pytest.mark.parametrize("factory", [AdamW, SGD])
@pytest.mark.parametrize("key", ["backbone_factor", "layer_decay"])
@pytest.mark.parametrize("value", [0.0, 1.5])
def test_a_factor_out_of_range_is_named(factory: Any, key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}: {value} given"):
        factory(**{key: value})


def test_the_optimizer_keeps_the_factors_in_what_a_checkpoint_holds() -> None:
    whole = model()
    optimizer = AdamW(backbone_factor=0.5).build(whole)
    saved = optimizer.state_dict()["param_groups"]
    assert [group["factor"] for group in saved] == [0.5, 0.5, 1.0, 1.0]
    assert isinstance(optimizer, torch.optim.AdamW)
