"""Faults put into a run on purpose. They live here, and no shipped code knows of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from detector.losses.focal import FocalLoss
from detector.training import train

Kind = Literal["nan", "oom", "sigterm", "sigusr1", "sigkill", "raise", "hang"]


@dataclass
class FaultInjector:
    """Does `kind` in the step-th step (1, 2, ...) on a rank, or on all of them (None).

    steps: in how many steps in a row. once: the path of a file that is made when it happens; where
    it is there, nothing happens, so that a run that is started again goes on.
    """

    kind: Kind
    step: int
    rank: int | None = None
    once: str | None = None
    steps: int = 1

    def install(self) -> Callable[[], None]:
        """Puts the fault before each step's gradient, where a step begins; what takes it out."""
        original, forward = train.backward, FocalLoss.forward

        def backward(setup: Any, state: Any, *rest: Any) -> Any:
            FocalLoss.forward = forward  # type: ignore[method-assign]  # spoiled for one step
            is_now = 0 <= state.step + 1 - self.step < self.steps
            is_here = self.rank in (None, setup.world.rank) and is_now
            if not is_here or (self.once is not None and os.path.exists(self.once)):
                return original(setup, state, *rest)
            if self.once is not None:
                open(self.once, "w").close()
            if self.kind == "nan":
                FocalLoss.forward = not_a_number(forward)  # type: ignore[method-assign]
            self.happen()
            return original(setup, state, *rest)

        train.backward = backward

        def remove() -> None:
            train.backward = original
            FocalLoss.forward = forward  # type: ignore[method-assign]

        return remove

    def happen(self) -> None:
        numbers = {"sigterm": signal.SIGTERM, "sigusr1": signal.SIGUSR1, "sigkill": signal.SIGKILL}
        if self.kind in numbers:
            os.kill(os.getpid(), numbers[self.kind])
        elif self.kind == "oom":
            raise torch.OutOfMemoryError("Tried to allocate more than there is")
        elif self.kind == "raise":
            raise ValueError("a fault put in on purpose")
        elif self.kind == "hang":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # else torchrun waits for it, 30 s
            time.sleep(3600)


def not_a_number(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A loss whose terms are NaN at the first anchor of the last image."""

    def spoiled(self: Any, predictions: Any, matches: Any) -> dict[str, torch.Tensor]:
        terms = forward(self, predictions, matches)
        for name, term in terms.items():
            factor = torch.ones_like(term)
            factor[-1, 0] = torch.nan
            terms[name] = term * factor
        return terms

    return spoiled


def main(text: str, fault: str) -> None:
    """What a process under torchrun does: a run of a plain config, with a fault, both as JSON."""
    import json

    from detector.config import from_plain
    from detector.training.run import run

    plain, options = json.loads(text), json.loads(fault)
    if options is not None:
        FaultInjector(**options).install()
    run(from_plain(plain), plain)
