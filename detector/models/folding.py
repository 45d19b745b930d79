"""Batch norms with constant statistics as a part of the convolutions before them.

With scale s and shift t of the norm, s * (W x + b) + t is the convolution (s W) x + (s b + t): the
same numbers up to rounding, with one pass over the map less, forward and backward. Factors are of
the size of the weights, a thousandth of the maps'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from detector.models.norm import FrozenBatchNorm

EXAMPLE = (1, 3, 64, 64)
"""Shape of the image by which a network is looked at: a multiple of 32, and quick."""

Pair = tuple[nn.Conv2d, nn.Module]
"""A convolution, and the norm that alone sees its output."""


class NormedConv2d(nn.Conv2d):
    """A convolution and, folded into it anew at each call, the frozen batch norm after it.

    Parameters and buffers stay where they were, under their names: checkpoints, optimizers and
    averages of weights see nothing of it. The gradient goes through the factors to `weight`, and to
    scale and shift of the norm where these are trained.
    """

    norm: FrozenBatchNorm

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H', W'), normalised."""
        scale, shift = self.norm.factors()
        bias = shift if self.bias is None else torch.addcmul(shift, self.bias, scale)
        return self._conv_forward(input, self.weight * scale[:, None, None, None], bias)


def fold_frozen_norms(net: nn.Module, run: Callable[[Tensor], Iterable[Tensor]]) -> int:
    """Lets convolutions do the work of the frozen batch norms after them; how many do.

    net: what is changed in place. run: as for `pairs`. A norm after anything else stays as it is.
    """
    if not any(isinstance(module, FrozenBatchNorm) for module in net.modules()):
        return 0
    folded = 0
    for conv, norm in pairs(net, run):
        if type(conv) is nn.Conv2d and isinstance(norm, FrozenBatchNorm):
            conv.__class__ = NormedConv2d
            # Past the module's own `__setattr__`: as a submodule it would have a second name.
            object.__setattr__(conv, "norm", norm)
            norm.is_folded = True
            folded += 1
    return folded


def pairs(net: nn.Module, run: Callable[[Tensor], Iterable[Tensor]]) -> list[Pair]:
    """The convolutions of a network of which nothing but a norm sees the output, with that norm.

    run: what the network makes of images (1, 3, H, W). Found by the graph that autograd keeps of an
    example, since names and the order of modules prove nothing: the input of the norm has to be the
    output of the convolution, which has no other use, and each is called once.
    """
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm)]
    made: dict[Any, nn.Conv2d] = {}
    taken: list[tuple[nn.Module, Any]] = []
    calls = Counter[nn.Module]()

    def after(conv: nn.Conv2d, _: Any, output: Tensor) -> None:
        made[output.grad_fn] = conv
        calls[conv] += 1

    def before(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        taken.append((norm, inputs[0].grad_fn))
        calls[norm] += 1

    hooks = [conv.register_forward_hook(after) for conv in convs]
    hooks += [norm.register_forward_pre_hook(before) for norm in norms]
    modes = {module: module.training for module in net.modules()}
    net.eval()  # so that nothing is counted into statistics
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            outputs = [*run(torch.zeros(EXAMPLE, requires_grad=True))]
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    uses = count_uses(outputs)
    return [
        (made[node], norm)
        for norm, node in taken
        if node in made and uses[node] == calls[made[node]] == calls[norm] == 1
    ]


def count_uses(outputs: Iterable[Tensor]) -> Counter[Any]:
    """How often the result of each node of autograd's graph is used, as an output included."""
    waiting = [output.grad_fn for output in outputs]
    uses, seen = Counter[Any](waiting), set[Any]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = [next_node for next_node, _ in node.next_functions]
        uses.update(following)
        waiting += following
    return uses
