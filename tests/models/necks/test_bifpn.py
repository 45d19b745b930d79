"""Weighted sums by hand, and a layer by the equations of the paper in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.config.model import FPNConfig
from detector.errors import ConfigError
from detector.models.necks.bifpn import BiFPN, BiFPNLayer, Fusion


def test_a_fusion_is_a_weighted_mean_by_hand() -> None:
    fusion = Fusion(1, 2, "none")
    nn.init.dirac_(fusion.depthwise.weight)
    pointwise = fusion.pointwise
    assert isinstance(pointwise, nn.Conv2d)
    nn.init.dirac_(pointwise.weight)
    nn.init.zeros_(pointwise.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        fusion.weight.copy_(torch.tensor([3.0, 1.0]))
    out = fusion([torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -2.0)])
    mean = (3 * 2 - 1 * 2) / 4.0001
    assert out.item() == pytest.approx(mean / (1 + 2.718281828459045**-mean), rel=1e-6)


def test_a_weight_below_0_counts_nothing() -> None:
    torch.manual_seed(0)
    fusion = Fusion(4, 2, "none")
    with torch.no_grad():
        fusion.weight.copy_(torch.tensor([1.0, -5.0]))
    a, b, c = (torch.randn(1, 4, 3, 3) for _ in range(3))
    assert torch.equal(fusion([a, b]), fusion([a, c]))


def test_a_layer_is_its_equations() -> None:
    torch.manual_seed(0)
    layer = BiFPNLayer(4, 4, "none").double()
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -1, 1)
    p3, p4, p5, p6 = (torch.randn(2, 4, n, n + 2, dtype=torch.float64) for n in (12, 6, 3, 2))
    p4, p5, p6 = p4[..., :7], p5[..., :4], p6[..., :2]
    w = dict(layer.named_parameters())

    def node(name: str, *maps: Tensor) -> Tensor:
        weight = w[f"{name}.weight"].clamp(min=0)
        x = sum((v * m for v, m in zip(weight, maps, strict=True)), torch.zeros(()))
        x = x / (weight.sum() + 1e-4)
        x = F.conv2d(x * x.sigmoid(), w[f"{name}.depthwise.weight"], padding=1, groups=4)
        return F.conv2d(x, w[f"{name}.pointwise.weight"], w[f"{name}.pointwise.bias"])

    def up(x: Tensor, fine: Tensor) -> Tensor:
        """The cell of the coarser map that lies under each cell of the finer one."""
        (height, width), (h, v) = fine.shape[-2:], x.shape[-2:]
        rows = torch.arange(height) * h // height
        columns = torch.arange(width) * v // width
        return x[:, :, rows][..., columns]

    def down(x: Tensor) -> Tensor:
        """The maximum of 3 x 3 cells around every second one, cell by cell."""
        padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
        rows = [
            torch.stack([padded[..., i : i + 3, j : j + 3].amax((-1, -2)) for j in columns], -1)
            for columns in [range(0, x.shape[-1], 2)]
            for i in range(0, x.shape[-2], 2)
        ]
        return torch.stack(rows, -2)

    t5 = node("up.2", p5, up(p6, p5))
    t4 = node("up.1", p4, up(t5, p4))
    o3 = node("up.0", p3, up(t4, p3))
    o4 = node("down.0", p4, t4, down(o3))
    o5 = node("down.1", p5, t5, down(o4))
    o6 = node("down.2", p6, down(o5))
    for ours, wanted in zip(layer([p3, p4, p5, p6]), (o3, o4, o5, o6), strict=True):
        # Float64, the same sums in another order.
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


def test_more_layers_have_weights_of_their_own() -> None:
    one, two = (BiFPN((4, 8, 16), FPNConfig(channels=8), num_layers=n) for n in (1, 2))
    assert len(list(two.layers.parameters())) == 2 * len(list(one.layers.parameters()))


def test_what_has_no_meaning_is_named() -> None:
    with pytest.raises(ConfigError, match="num_layers: 0 given"):
        BiFPN((4, 8, 16), FPNConfig(channels=8), num_layers=0)
    with pytest.raises(ConfigError, match=r"model\.anchors\.levels: \[5, 5\]"):
        BiFPN((16,), FPNConfig(channels=8), (5, 5))
