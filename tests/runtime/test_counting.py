"""Operators, bytes and shapes are counted as they can be counted by hand."""

from __future__ import annotations

import torch

from detector.runtime.counting import Counter


def test_bytes_are_those_of_new_storages_only() -> None:
    x = torch.ones(2, 3)
    with Counter() as counter:
        y = x + 1
        y.add_(1)
        y.view(6)
    assert counter.counts == {"aten::add": 1, "aten::add_": 1, "aten::view": 1}
    assert counter.allocated == 2 * 3 * 4
    assert counter.shapes == {(2, 3), (6,)}
