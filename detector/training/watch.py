"""What a run says of its own speed: what torch compiled, and how often a step waits for the GPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from detector.config import Config
from detector.runtime.compiling import Compilations, compilations
from detector.training.log import Log, Silent

SYNCHRONIZES = "called a synchronizing CUDA operation"
"""What torch warns of where the host waits for the GPU, once it is asked to."""


class Watch:
    """Counts since it was made, for each line of the log.

    On a CPU there is no waiting; without `compile` nothing is compiled. Then it gives no numbers.
    """

    def __init__(self, config: Config, device: torch.device, log: Log | Silent) -> None:
        self._config, self._device, self._log = config, device, log
        self._waits = 0
        self._before = self._seen = self._now()

    @contextmanager
    def waits(self, step: int) -> Iterator[None]:
        """Counts, in steps that will be logged, where the block makes the host wait for the GPU.

        Of a step there is one such place, where its facts are read.
        """
        if self._device.type != "cuda" or step % self._config.log_every:
            yield
            return
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        self._waits += sum(SYNCHRONIZES in str(one.message) for one in caught)

    def take(self, step: int) -> dict[str, float]:
        """The numbers for the log after `step` steps; says what was compiled anew since the last
        time, as that costs more than many steps."""
        facts: dict[str, float] = {}
        if self._device.type == "cuda" and step % self._config.log_every == 0:
            facts["waits"] = self._waits
            self._waits = 0
        if self._config.compile != "off":
            now = self._now()
            for reason in (now - self._seen).reasons:
                self._log.say(f"step {step}: compiled anew or in pieces: {reason}")
            self._seen = now
            facts |= (now - self._before).facts()
        return facts

    def conclude(self) -> None:
        """The last line: a flag that did nothing is seen by a 0."""
        if self._config.compile != "off":
            done = self._now() - self._before
            self._log.say(f"compile={self._config.compile}: {done}")

    def _now(self) -> Compilations:
        return Compilations() if self._config.compile == "off" else compilations()
