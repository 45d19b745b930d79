"""The second path by hand, and by its equations written anew in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.config.model import FPNConfig
from detector.models.necks.pafpn import PAFPN


def as_identity(conv: nn.Module) -> None:
    assert isinstance(conv, nn.Conv2d)
    nn.init.dirac_(conv.weight)


def test_each_level_gets_every_second_cell_of_the_finer_one_by_hand() -> None:
    neck = PAFPN((1, 1, 1), FPNConfig(channels=1), (3, 5))
    for conv in neck.modules():
        if isinstance(conv, nn.Conv2d):
            as_identity(conv)
    c3 = torch.arange(16.0).reshape(1, 1, 4, 4)
    c4 = torch.tensor([[[[100.0, 200], [300, 400]]]])
    c5 = torch.tensor([[[[1000.0]]]])
    n3, n4, n5 = neck([c3, c4, c5])
    p4 = torch.tensor([[1100.0, 1200], [1300, 1400]])
    p3 = c3[0, 0] + p4.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(n3[0, 0], p3)
    # A dirac of stride 2 takes the cells (0, 0), (0, 2), (2, 0), (2, 2).
    assert torch.equal(n4[0, 0], p4 + p3[::2, ::2])
    assert n5.item() == 1000 + (p4 + p3[::2, ::2])[0, 0]


def test_it_is_its_equations() -> None:
    torch.manual_seed(0)
    neck = PAFPN((4, 8, 16), FPNConfig(channels=6, p6_source="p5")).double()
    maps = [torch.randn(2, 4 * 2**i, 12 >> i, 20 >> i, dtype=torch.float64) for i in range(3)]
    w = dict(neck.named_parameters())

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = w[f"{name}.weight"]
        return F.conv2d(x, kernel, w[f"{name}.bias"], stride, padding=kernel.shape[-1] // 2)

    def up(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    m5 = conv(maps[2], "lateral.2")
    m4 = conv(maps[1], "lateral.1") + up(m5)[:, :, :6, :10]
    m3 = conv(maps[0], "lateral.0") + up(m4)
    p3, p4, p5 = (conv(m, f"output.{i}") for i, m in enumerate((m3, m4, m5)))
    s4 = p4 + conv(p3, "down.0", 2)
    s5 = p5 + conv(s4, "down.1", 2)
    n4, n5 = conv(s4, "path.0"), conv(s5, "path.1")
    n6 = conv(n5, "p6", 2)
    n7 = conv(n6.relu(), "p7", 2)
    for ours, wanted in zip(neck(maps), (p3, n4, n5, n6, n7), strict=True):
        # Float64, the same sums in another order.
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)
