"""In which number format the forward pass runs. Losses are always computed in float32 or better."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from detector.errors import ConfigError

M = TypeVar("M", bound=nn.Module)

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls a processor's own bfloat16 arithmetic (x86 twice, Arm)."""


@dataclass(frozen=True)
class Precision:
    """name: float64, float32, bfloat16 or float16. reason: why it was chosen, for the log."""

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.name]

    @property
    def parameter_dtype(self) -> torch.dtype:
        """Of the weights: float32 also under the half formats."""
        return torch.float64 if self.name == "float64" else torch.float32

    @property
    def needs_scaling(self) -> bool:
        """float16's gradients underflow unless the loss is scaled up."""
        return self.name == "float16"

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """The context for a forward pass."""
        if self.name in ("float64", "float32"):
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)  # type: ignore[return-value]


def choose(name: str, device: torch.device) -> Precision:
    """What `precision=name` means on this device. Raises ConfigError for an unknown name."""
    if name in DTYPES:
        return Precision(name, "as asked for")
    if name != "auto":
        raise ConfigError(f"precision: {name!r} given; allowed: auto, {', '.join(DTYPES)}")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bfloat16", "the GPU has it")
        return Precision("float16", "the GPU has no bfloat16")
    if processor_has_bfloat16():
        return Precision("bfloat16", "the processor has instructions for it")
    return Precision("float32", "the processor has no instructions for bfloat16")


def prepare(model: M, precision: Precision, device: torch.device, *, channels_last: bool) -> M:
    """The model on the device, in the number format of its weights and the memory order asked."""
    model = model.to(device, precision.parameter_dtype)
    return model.to(memory_format=torch.channels_last) if channels_last else model  # type: ignore[call-overload]


def processor_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether Linux reports bfloat16 instructions; False where it cannot be known."""
    if not cpuinfo.is_file():
        return False
    for line in cpuinfo.read_text().splitlines():
        key, _, flags = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return not BFLOAT16_FLAGS.isdisjoint(flags.split())
    return False


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What Linux calls the processor, for reports of seconds."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            key, _, name = line.partition(":")
            if key.strip() == "model name":
                return name.strip()
    return "unknown processor"
