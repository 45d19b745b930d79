"""What a piece of work asks of the device: operators, bytes of new results, shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Counter(TorchDispatchMode):
    """Counts the operators that run inside a `with` block.

    counts: how often each operator ran. allocated: bytes of storages that no argument had, each
    result by itself, so what is freed in between counts too. shapes: distinct shapes of results.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.allocated = 0
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        given = {_storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        self.counts[name] = self.counts.get(name, 0) + 1
        for t in tree_leaves(result):
            if isinstance(t, torch.Tensor):
                self.shapes.add(tuple(t.shape))
                if (storage := _storage(t)) not in given:
                    given.add(storage)
                    self.allocated += t.untyped_storage().nbytes()
        return result


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
