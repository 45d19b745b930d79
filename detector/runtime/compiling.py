"""Functions compiled by torch, and the proof that they are: what was compiled, how often and why.

`torch.compile` goes on without a word where it cannot help: it breaks graphs, compiles anew for
each shape, and at last gives up. So all of that is counted here, for the log.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from detector.errors import ConfigError

F = TypeVar("F", bound=Callable[..., object])

BACKEND = "inductor"
"""What makes code of a graph. Tests put "aot_eager" here, which runs the graph as it is."""

MOST_VARIANTS = 64
"""Of one function, one for each shape of its arguments. torch gives up after 8, and goes on without
compiling, so that the numbers of a run would depend on where it was resumed."""

MOST_METRICS = 4096
"""Compilations that torch remembers the facts of: more than one run makes."""

MAX_REASON = 200
"""Characters of the reason of a recompilation that are shown."""

COMPILERS = ("g++", "clang++", "c++")
"""Looked for where CXX names none; torch calls one of them for the code of a CPU."""


def require_compiler(compile: str, device: torch.device) -> None:
    """Raises ConfigError where torch has nothing to compile with for this device."""
    if compile == "off" or BACKEND != "inductor":
        return
    if device.type == "cuda":
        from torch.utils._triton import has_triton  # asks the driver, so only where it is needed

        has, missing = has_triton(), "triton, or a GPU of compute capability 7.0 or more"
    else:
        chosen = os.environ.get("CXX")
        has = any(shutil.which(name) for name in ([chosen] if chosen else COMPILERS))
        missing = f"a C++ compiler ({', '.join(COMPILERS)}, or what CXX names)"
    if not has:
        raise ConfigError(f"compile: {compile} given, but {missing} is not there; off is allowed")


def compiled(function: F, *, with_cuda_graphs: bool = False) -> F:
    """The function, compiled at its first call and anew for each shape of its tensors.

    Sizes are constants of the code: with sizes as variables, which torch chooses at the second
    shape, the code that runs a shape, and so the last bit, would depend on the shapes before it.

    with_cuda_graphs: what it does on a GPU is recorded once and then replayed, in memory that all
    recordings share. Its results are overwritten in the next step.
    """
    from torch import _dynamo as dynamo  # takes a second, which most runs need not wait
    from torch._dynamo.exc import FailOnRecompileLimitHit

    dynamo.config.recompile_limit = MOST_VARIANTS
    dynamo.config.fail_on_recompile_limit_hit = True
    dynamo.utils.set_compilation_metrics_limit(MOST_METRICS)
    mode = "reduce-overhead" if with_cuda_graphs else None
    made = torch.compile(function, backend=BACKEND, mode=mode, dynamic=False)

    def call(*args: object, **options: object) -> object:
        try:
            return made(*args, **options)
        except FailOnRecompileLimitHit:
            raise ConfigError(
                f"compile: {function.__name__} was compiled for {MOST_VARIANTS} kinds of arguments "
                "and would be for more, such as batches of another height or width; "
                "images of one size need one, compile=off takes any"
            ) from None

    return call  # type: ignore[return-value]


@dataclass(frozen=True)
class Compilations:
    """What torch has compiled in this process up to a moment.

    graphs: pieces of Python that became code. recompiles: compilations of a piece that had been
    compiled before. breaks: places where a piece ended since what follows cannot be compiled.
    captures: recordings of CUDA graphs. skips: pieces that should have been recorded, and were not.
    reasons: of breaks and recompilations.
    """

    graphs: int = 0
    recompiles: int = 0
    breaks: int = 0
    captures: int = 0
    skips: int = 0
    reasons: tuple[str, ...] = field(default=(), compare=False)

    def __sub__(self, before: Compilations) -> Compilations:
        """What came after `before`."""
        return Compilations(
            self.graphs - before.graphs,
            self.recompiles - before.recompiles,
            self.breaks - before.breaks,
            self.captures - before.captures,
            self.skips - before.skips,
            tuple(reason for reason in self.reasons if reason not in before.reasons),
        )

    def facts(self) -> dict[str, int]:
        """The numbers by name, for the log of a run."""
        return {
            "compiled_graphs": self.graphs,
            "recompiles": self.recompiles,
            "graph_breaks": self.breaks,
            "cuda_graphs": self.captures,
            "cuda_graphs_skipped": self.skips,
        }

    def __str__(self) -> str:
        return (
            f"{self.graphs} graphs compiled, {self.recompiles} of them anew, {self.breaks} breaks, "
            f"{self.captures} CUDA graphs recorded, {self.skips} not"
        )


def compilations() -> Compilations:
    """What torch has compiled in this process until now. Costs less than a millisecond."""
    from torch._dynamo import utils

    anew = [
        f"{one.co_name}: {one.recompile_reason}"
        for one in utils.get_compilation_metrics()
        if one.recompile_reason
    ]
    breaks = utils.counters["graph_break"]
    return Compilations(
        graphs=utils.counters["stats"]["unique_graphs"],
        recompiles=len(anew),
        breaks=sum(breaks.values()),
        captures=len(utils.compilation_time_metrics.get("CUDAGraphNode.record", ())),
        skips=utils.counters["inductor"]["cudagraph_skips"],
        reasons=tuple(" ".join(text.split())[:MAX_REASON] for text in (*breaks, *anew)),
    )
