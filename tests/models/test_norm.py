"""Norm layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detector.models.norm import FrozenBatchNorm, group_norm


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (256, 32), (16, 16), (48, 16), (7, 1)])
def test_a_group_norm_has_32_groups_or_the_most_that_fit(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def live_and_frozen() -> tuple[nn.BatchNorm2d, FrozenBatchNorm]:
    torch.manual_seed(0)
    live, frozen = nn.BatchNorm2d(4).eval(), FrozenBatchNorm(4)
    for tensor in (live.weight, live.bias, live.running_mean, live.running_var):
        nn.init.uniform_(tensor, 0.5, 2.0)  # type: ignore[arg-type]
    state = live.state_dict()
    del state["num_batches_tracked"]
    frozen.load_state_dict(state)
    return live, frozen


def test_a_frozen_batch_norm_is_a_batch_norm_in_evaluation() -> None:
    live, frozen = live_and_frozen()
    x = torch.randn(2, 4, 3, 3)
    # float32 rounding: the same factors in another order.
    torch.testing.assert_close(frozen.train()(x), live(x), rtol=1e-5, atol=1e-6)


def test_a_frozen_batch_norm_has_nothing_to_train_and_never_changes() -> None:
    _, frozen = live_and_frozen()
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    frozen.train()(torch.randn(2, 4, 3, 3))
    assert not list(frozen.parameters())
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_type_of_the_activations_is_kept(dtype: torch.dtype) -> None:
    _, frozen = live_and_frozen()
    assert frozen(torch.randn(2, 4, 3, 3, dtype=dtype)).dtype == dtype
