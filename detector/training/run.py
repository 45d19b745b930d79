"""A training run from its config to its last line: folder, parts, training, report."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.distributed.elastic.multiprocessing.errors import record

from detector.config import Config
from detector.config.compose import to_yaml
from detector.data.account import MAX_NAMED
from detector.data.review import review
from detector.data.workers import explained
from detector.errors import (
    INTERRUPTED,
    MAX_QUOTED,
    ConfigError,
    DataError,
    DivergedError,
    Preempted,
    UserError,
)
from detector.inference.evaluate import report, require_pictures
from detector.inference.predictor import Predictor, load_checkpoint
from detector.runs import entries, own_files
from detector.runs.lock import claimed
from detector.runs.resume import Opened, folder_of, open_folder
from detector.runs.run_folder import RunFolder
from detector.runtime import distributed
from detector.runtime.distributed import World
from detector.runtime.memory import lacks_shared_memory
from detector.runtime.output import steady_output
from detector.runtime.precision import processor_name
from detector.runtime.signals import handlers_kept
from detector.runtime.startup import check_versions
from detector.training.log import Log, Silent
from detector.training.saving import changes_of_data, is_same_val_set, require_same_data
from detector.training.setup import Setup, build
from detector.training.state import NONE_YET, State
from detector.training.train import train


@dataclass(frozen=True)
class Run:
    """A finished run. folder: where it lies. metrics: of its last evaluation."""

    folder: Path
    metrics: dict[str, Any]

    def load(self, which: Literal["best", "last"] = "best", *, device: str = "auto") -> Predictor:
        """The model with the best weights of the run, or with its last."""
        folder = RunFolder(self.folder)
        return load_checkpoint(folder.best if which == "best" else folder.last, device=device)


def run(config: Config, plain: dict[str, Any]) -> Run:
    """Everything `detector train` does. Raises UserError for all that a user can mend."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        # torchrun's summary then ends with the message of the process that failed first.
        finished = record(_start)(config, plain)
        assert finished is not None
        return finished
    return _start(config, plain)


def _start(config: Config, plain: dict[str, Any]) -> Run:
    check_versions()
    plain = {"prior": config.prior, **plain}  # its number is saved, so the key is always there
    world = distributed.start(config.device, config.process_timeout)
    try:
        with steady_output(), claimed(folder_of(config, plain), world):
            return _run(config, plain, world)
    finally:
        distributed.stop()


def _run(config: Config, plain: dict[str, Any], world: World) -> Run:
    began = time.perf_counter()
    require_pictures(config.evaluation)
    opened, resumed = open_folder(config, plain, world)
    folder = opened.folder
    # What a run goes on from holds its weights: the file it began with may be gone.
    began_from = config if resumed is None else replace(config, weights=None)
    try:
        setup, state = build(began_from, plain, world)
    except DataError as error:
        raise _written(error, folder) if world.is_main else error from None
    if resumed is not None:
        entries.require(resumed, entries.GONE_ON_WITH, f"resume: {opened.source}")
        require_same_data(setup, resumed)
        load_state(state, resumed, str(opened.source))
        changes, is_same = world.from_main(
            lambda: (changes_of_data(setup, resumed), is_same_val_set(setup, resumed))
        )
        opened = replace(opened, notes=(*opened.notes, *changes))
        state.best_metric = state.best_metric if is_same else NONE_YET
    if world.is_main:
        folder.path.mkdir(parents=True, exist_ok=True)
        own_files.mark(folder)
        log: Log | Silent = Log(
            folder, setup.num_steps, state.step, config.tensorboard, evaluated=state.evaluated
        )
    else:
        log = Silent()
    try:
        log.config(to_yaml(setup.plain))
        introduce(setup, state, opened, log)
        with handlers_kept(), explained():
            metrics = train(setup, state, folder, log)
    except BaseException as error:
        _write_failure(log, state, error)
        raise
    finally:
        log.close()
    if world.is_main:
        facts = {"images": state.images, "skipped": state.skipped, "replaced": state.replaced}
        log.status("done", step=state.step, exit_code=0, **facts)
        report(metrics, folder)
        seconds = time.perf_counter() - began
        print(f"{seconds:.0f} s in all on {processor_name()}, {torch.get_num_threads()} threads")
    return Run(folder.path, metrics)


def _written(error: DataError, folder: RunFolder) -> DataError:
    """The error; where it has more faults than its message, with the file that holds them all."""
    if len(error.details) <= MAX_NAMED:
        return error
    with suppress(OSError):  # it is told without them
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.data_faults.write_text("\n".join(error.details) + "\n")
        return DataError(f"{error}\nall {len(error.details)}: {folder.data_faults}")
    return error


def load_state(state: State, resumed: dict[str, Any], path: str) -> None:
    """`load_state_dict` of a file, which may be anybody's. Raises ConfigError where it does not fit
    the model of the config."""
    try:
        state.load_state_dict(resumed)
    # Of as many kinds as torch has ways to meet what it does not expect.
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())[:MAX_QUOTED]
        raise ConfigError(
            f"resume: {path} does not fit the model of its config: {type(error).__name__}: {why}"
        ) from None


def introduce(setup: Setup, state: State, opened: Opened, log: Log | Silent) -> None:
    """Says what is about to be trained, on what, and where it will lie."""
    config, world = setup.config, setup.world
    log.say(f"run folder: {opened.folder.path}")
    for note in opened.notes:
        log.say(note)
    for split, dataset in (("train", setup.train_set), ("val", setup.val_set)):
        for line in dataset.annotations.summary():
            log.say(f"{split}: {line}")
    if world.is_main:
        found = review(setup.train_set, setup.val_set)
        for line in found.lines():
            log.say(line)
        log.data(json.dumps(found.to_dict(), indent=1) + "\n")
    log.say(
        f"{world.size} x {world.device}, {setup.precision.name} ({setup.precision.reason}); "
        f"a step is {config.batch_size} images, {setup.micro_batch} at a time on a device"
    )
    if world.is_main and (shortage := shared_memory_shortage(setup)):
        log.say(f"WARNING: {shortage}")
    parameters = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    log.say(
        f"loss {config.loss.name}, box loss {config.box_loss.name}, "
        f"prior {setup.plain['prior']:.4g}, {parameters / 1e6:.2f} M parameters, "
        f"steps {state.step} to {setup.num_steps}"
    )


def shared_memory_shortage(setup: Setup) -> str | None:
    """A warning where the loader's workers may not find room for the batches of this run."""
    num_images = setup.micro_batch + setup.config.evaluation.images_per_group
    workers = setup.config.loader.workers
    return lacks_shared_memory(setup.train_set, setup.augment, num_images, workers)


def _write_failure(log: Log | Silent, state: State, error: BaseException) -> None:
    names = {DivergedError: "diverged", Preempted: "preempted"}
    code = error.exit_code if isinstance(error, UserError) else 1
    code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else code
    log.status(
        names.get(type(error), "failed"), step=state.step, exit_code=code, message=str(error)
    )
