"""A step that was not finite, once more: the same weights, images and random draws."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from detector.config import from_plain
from detector.data.loader import train_batches
from detector.errors import ConfigError, DataError
from detector.runs import checkpoint
from detector.runs.run_folder import RunFolder
from detector.runs.side_files import read_record
from detector.runtime import distributed
from detector.runtime.stopwatch import Stopwatch
from detector.structures import MicroBatches, to_device
from detector.training import crash
from detector.training.saving import require_same_data
from detector.training.setup import Setup, build
from detector.training.state import State
from detector.training.train import backward


@dataclass(frozen=True)
class Replay:
    """step: the 1st, 2nd, ... values: loss and gradient norm, as the run measured them and now.

    faults: a sentence each, of weights and images; gradients: of parameters.
    """

    step: int
    then: dict[str, float]
    now: dict[str, float]
    faults: list[str]
    gradients: list[str]

    @property
    def is_repeated(self) -> bool:
        """Whether now, too, something is not finite."""
        return not all(map(math.isfinite, self.now.values()))


def replay(folder: str, device: str = "auto") -> Replay:
    """Repeats the step that a run has left in `crash`, on one process.

    Micro-batches are those of the run, whatever the number of its processes. Raises ConfigError
    where the run has left none, DataError where its data are others now.
    """
    path = RunFolder(Path(folder)).crash
    if not (path / crash.BATCH).is_file():
        raise ConfigError(f"folder: {folder} holds no step that was not finite (no {path})")
    kinds = {"micro_batch": int, "step": int, "batches": list, "values": dict}
    record = read_record(path / crash.BATCH, kinds)
    saved = checkpoint.load(path / crash.CHECKPOINT)
    config = replace(from_plain(saved["config"]), micro_batch=record["micro_batch"])
    world = distributed.start(device)
    try:
        setup, state = build(config, saved["config"], world)
        require_same_data(setup, saved)
        state.load_state_dict(saved)
        return _replay(setup, state, record)
    finally:
        distributed.stop()


def _replay(setup: Setup, state: State, record: dict[str, Any]) -> Replay:
    micro = micro_batches(setup, state.step)
    if crash.facts_of(micro) != record["batches"]:
        raise DataError(f"step {record['step']}: its images are not those that the run had")
    micro = [(to_device(b, setup.world.device), to_device(t, setup.world.device)) for b, t in micro]
    state.model.train()
    faults = crash.examine(setup, state, micro)
    sums = backward(setup, state, state.model, micro, Stopwatch(setup.world.device, False))
    state.scaler.unscale_(state.optimizer)
    named = [(n, p.grad) for n, p in state.model.named_parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([gradient for _, gradient in named])
    return Replay(
        step=record["step"],
        then={name: float(value) for name, value in record["values"].items()},
        now={"loss": float(sum(sums.terms.values())), "gradient": float(norm)},
        faults=faults,
        gradients=[f"{n}: {share}" for n, g in named if (share := crash.share_not_finite(g))],
    )


def micro_batches(setup: Setup, step: int) -> MicroBatches:
    """The micro-batches of the step after `step` steps."""
    config = setup.config
    batches = train_batches(
        setup.train_set,
        setup.augment,
        seed=config.seed,
        batch_size=config.batch_size,
        micro_batch=setup.micro_batch,
        start_step=step,
        stop_step=step + 1,
        num_steps=setup.num_steps,
        sampler=setup.sampler,
    )
    return list(batches)


def in_words(found: Replay) -> str:
    """Lines for the reader."""
    verdict = "repeated" if found.is_repeated else "NOT repeated: all is finite now"
    lines = [f"step {found.step}: {verdict}; then {found.then}, now {found.now}"]
    lines += found.faults or ["weights, images, terms and the gradient of the outputs are finite"]
    shown = found.gradients[: crash.MOST]
    lines += [f"gradient of {line}" for line in shown]
    if len(found.gradients) > len(shown):
        lines.append(f"and {len(found.gradients) - len(shown)} more gradients")
    return "\n".join(lines)
