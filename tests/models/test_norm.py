"""Norm layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detector.models.norm import ChannelsLastGroupNorm, FrozenBatchNorm, GroupNorm, group_norm


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(64, 32), (256, 32), (32, 16), (16, 8), (48, 16), (7, 1), (2, 1), (1, 1)],
)
def test_a_group_norm_has_32_groups_or_the_most_that_fit(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_a_group_norm_of_few_channels_tells_the_single_cell_of_an_image_from_another() -> None:
    norm = group_norm(16)
    a, b = (norm(torch.randn(1, 16, 1, 1, generator=torch.manual_seed(i))) for i in (0, 1))
    assert not torch.equal(a, b)


def outcome(norm: nn.GroupNorm, x: Tensor, dy: Tensor) -> list[Tensor]:
    """The output, and the gradients of input, weight and bias, for the gradient `dy`."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    return [y.detach(), *torch.autograd.grad(y, [x, norm.weight, norm.bias], dy)]


def group_norm_case(
    dtype: torch.dtype, channels: int = 64, groups: int = 32
) -> tuple[GroupNorm, nn.GroupNorm, Tensor, Tensor]:
    """Ours, torch's in float64, and a channels-last input and gradient of `dtype`."""
    torch.manual_seed(0)
    ours, reference = GroupNorm(groups, channels), nn.GroupNorm(groups, channels).double()
    for p in (ours.weight, ours.bias):
        nn.init.uniform_(p, 0.5, 2.0)
    reference.load_state_dict(ours.state_dict())
    x, dy = (1 + torch.randn(3, channels, 9, 7) for _ in range(2))
    x, dy = (t.to(dtype).contiguous(memory_format=torch.channels_last) for t in (x, dy))
    return ours, reference, x, dy


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # A handful of roundings of numbers near 1 to 53, 24 and 8 binary digits, in sums of 126 terms.
    [(torch.float64, 1e-11), (torch.float32, 1e-4), (torch.bfloat16, 3e-2)],
)
@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (64, 1), (6, 6)])
def test_a_channels_last_group_norm_is_that_of_torch_in_float64(
    dtype: torch.dtype, tolerance: float, channels: int, groups: int
) -> None:
    ours, reference, x, dy = group_norm_case(dtype, channels, groups)
    ours = ours.double() if dtype == torch.float64 else ours
    assert ChannelsLastGroupNorm.__name__ in str(ours(x.requires_grad_()).grad_fn)
    found = outcome(ours, x, dy)
    wanted = outcome(reference, x.double().contiguous(), dy.double().contiguous())
    for ours_is, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours_is.double(), theirs, rtol=tolerance, atol=tolerance)
    assert [t.dtype for t in found] == [dtype, dtype, ours.weight.dtype, ours.weight.dtype]


def test_a_group_norm_keeps_the_channels_last_order_forward_and_back() -> None:
    ours, _, x, dy = group_norm_case(torch.bfloat16)
    y, dx, *_ = outcome(ours, x, dy)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert dx.is_contiguous(memory_format=torch.channels_last)


def test_a_gradient_in_another_order_of_memory_is_understood() -> None:
    ours, _, x, dy = group_norm_case(torch.float32)
    for a, b in zip(outcome(ours, x, dy), outcome(ours, x, dy.contiguous()), strict=True):
        # Sums over pixels in another order, in float32.
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_what_is_not_a_number_passes_through_a_group_norm_both_ways() -> None:
    ours, _, x, dy = group_norm_case(torch.float32)
    x[0, 0, 0, 0] = torch.nan
    *affected, d_bias = outcome(ours, x, dy)
    assert all(bool(t.isnan().any()) for t in affected)
    # The gradient of the bias is a sum of dy alone.
    assert not d_bias.isnan().any()


def test_without_gradients_the_numbers_are_the_same() -> None:
    ours, _, x, _ = group_norm_case(torch.float32)
    with torch.no_grad():
        alone = ours(x)
    assert torch.equal(alone, ours(x))


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
