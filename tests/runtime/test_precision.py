"""Which number format a run takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detector.errors import ConfigError
from detector.runtime.precision import choose, processor_has_bfloat16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx512_bf16 sse\n", True),
        ("flags : fpu amx_bf16\n", True),
        ("Features : fp asimd bf16\n", True),
        ("flags : fpu avx2 avx512f\n", False),
        ("model name : bf16\n", False),
    ],
)
def test_the_flags_of_the_processor_decide(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert processor_has_bfloat16(tmp_path / "cpuinfo") is expected


def test_without_cpuinfo_float32_is_safe(tmp_path: Path) -> None:
    assert processor_has_bfloat16(tmp_path / "nothing") is False


def test_a_name_is_taken_as_it_is_and_an_unknown_one_refused() -> None:
    cpu = torch.device("cpu")
    assert choose("float64", cpu).parameter_dtype == torch.float64
    assert choose("bfloat16", cpu).parameter_dtype == torch.float32
    assert choose("float16", cpu).needs_scaling
    with pytest.raises(ConfigError, match="allowed: auto, float64"):
        choose("half", cpu)
