"""The training page: one optimizer step from top to bottom, without hooks."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from detector.criterion.initial_loss import expected_initial_loss
from detector.data.account import share_above
from detector.data.loader import train_batches
from detector.errors import DataError, DivergedError, Preempted
from detector.inference.score import score
from detector.runs.run_folder import RunFolder
from detector.runtime.memory import explained, peak_gigabytes
from detector.runtime.signals import Interrupted, StopRequest
from detector.runtime.stopwatch import Stopwatch
from detector.structures import MicroBatches, Predictions, to_device
from detector.training import crash
from detector.training.log import Log, Silent
from detector.training.saving import Saver
from detector.training.setup import Setup, predictor_of
from detector.training.state import State
from detector.training.watch import Watch

if TYPE_CHECKING:
    from detector.training.probe.probe import Probe
    from detector.training.probe.step_record import StepRecord


def train(setup: Setup, state: State, folder: RunFolder, log: Log | Silent) -> dict[str, Any]:
    """Trains from `state.step` to the end of the run; the metrics of the last evaluation.

    Raises DivergedError after `max_bad_steps` steps in a row whose loss or gradient is not finite,
    Preempted after a signal asked for an end; `last.pt` is saved first in the second case.
    OutOfMemory names the key to lower, LoaderError the images that were being loaded, StorageError
    says at the end that the disk was full.
    """
    config, world = setup.config, setup.world
    model = state.model
    wrapped = world.wrap(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    stop, saver = StopRequest(), Saver(setup, state, folder, log)
    clock = Stopwatch(world.device, config.profile)
    watch = Watch(config, world.device, log)
    bad_steps = 0
    probe = start_probe(setup, state, folder.probe) if config.probe.enabled else None
    wrapped.train()
    metrics: dict[str, Any] = {}
    if evaluation_is_due(setup, state):  # stopped between a save and its evaluation
        metrics = evaluate_and_keep_best(setup, state, folder, log, saver, stop)
        wrapped.train()
    batches = train_batches(
        setup.train_set,
        setup.augment,
        seed=config.seed,
        batch_size=config.batch_size,
        micro_batch=setup.micro_batch,
        rank=world.rank,
        world_size=world.size,
        start_step=state.step,
        stop_step=setup.num_steps,
        sampler=setup.sampler,
        num_workers=config.loader.workers,
        timeout=config.loader.timeout,
        pin_memory=world.device.type == "cuda",
    )
    while not is_over(setup, state):
        world.waits.step = state.step + 1
        rate = setup.learning_rate * setup.schedule(state.step, setup.num_steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)

        with clock("data"):
            micro = [next(batches) for _ in range(setup.accumulation)]
            images = chained(state.images, micro)
        record = probe.record(state) if probe else None
        with explained(state.step + 1, micro), watch.waits(state.step + 1):
            micro = [(to_device(b, world.device), to_device(t, world.device)) for b, t in micro]
            sums = backward(setup, state, wrapped, micro, clock, record)

        with clock("optimizer"), watch.waits(state.step + 1):
            damaged = [line for batch, _ in micro for line in batch.damaged]
            done = update(setup, state, parameters, sums, stop.requested, len(damaged))
            if done.is_finite and state.ema is not None:
                state.ema.update(model, state.step)
        if sums.expected is not None:
            log.initial(sums.expected, done.terms)
        values = {"loss": sum(done.terms.values()), **done.terms}
        bad_steps = 0 if done.is_finite or state.scaler.get_scale() > 1 else bad_steps + 1
        if not done.is_finite:
            bad_values = {"loss": values["loss"], "gradient": done.norm}
            log.say(f"step {state.step + 1}: {bad_values}: step skipped")
            if bad_steps == 1:
                log.say(crash.write(setup, state, folder, micro, bad_values))
            if bad_steps >= config.max_bad_steps:
                raise DivergedError(crash.in_words(setup, state, micro, bad_steps))
        state.step, state.images = state.step + 1, images
        state.skipped += not done.is_finite
        if done.damaged:
            state.replaced += done.damaged
            log.damaged(damaged)
            require_few_damaged(setup, state)
        if probe:
            probe.after(state, record, is_finite=done.is_finite)
            wrapped.train()

        log.advance()
        is_end, wants_stop = state.step == setup.num_steps, done.wants_stop
        if state.step % config.log_every == 0 or is_end:
            values |= {"lr": rate, "grad_norm": done.norm, **clock.take()}
            values |= {"memory_gb": peak_gigabytes(world.device), **watch.take(state.step)}
            log.step(state.step, values, config.batch_size)
        is_due = evaluation_is_due(setup, state)
        if is_due or wants_stop or (config.save_every and state.step % config.save_every == 0):
            saver.last(state)  # before an evaluation, which may fail or outlast a deadline
        if wants_stop and not is_end:
            saver.require_saved()
            raise Preempted(stopped(stop, folder, f"after step {state.step}"))
        if is_due:
            metrics = evaluate_and_keep_best(setup, state, folder, log, saver, stop)
            wrapped.train()
    if state.step < setup.num_steps:
        log.say(f"no better AP in {state.stale} evaluations: stopped at step {state.step}")
    if config.profile:
        log.say(clock.table())
    watch.conclude()
    saver.require_saved()
    # A finished run that is resumed is scored.
    return metrics or evaluate(setup, state, folder, folder, stop)


def start_probe(setup: Setup, state: State, folder: Path) -> Probe:
    """What records the run's training into a folder; loaded by the runs that ask for it."""
    from detector.training.probe.probe import Probe

    return Probe(setup, state, folder)


def chained(before: str, micro: MicroBatches) -> str:
    """16 hex digits of what was seen before, and of this rank's images of the step in their order.

    The keys are in it, so equal chains also mean equal random draws of the augmentation.
    """
    seen = [(batch.image_ids, targets.keys.tolist()) for batch, targets in micro]
    flat = [list(chain.from_iterable(column)) for column in zip(*seen, strict=True)]
    return hashlib.sha256(f"{before} {flat}".encode()).hexdigest()[:16]


def evaluate(
    setup: Setup, state: State, run: RunFolder, folder: RunFolder | None, stop: StopRequest
) -> dict[str, Any]:
    """Metrics of the run's evaluated model on the val split, which a folder is to keep.

    Raises Preempted soon after `stop` was requested: the state of the run is saved before.
    """
    predictor = predictor_of(setup, state)
    try:
        return score(
            predictor,
            setup.val_set,
            setup.world,
            folder=folder,
            seed=setup.config.seed,
            stop=stop,
            facts=left_out(setup, state),
        )
    except Interrupted:
        where = f"in the evaluation after step {state.step}"
        raise Preempted(stopped(stop, run, where)) from None


def left_out(setup: Setup, state: State) -> dict[str, Any]:
    """What of the data was of no use to the run, where something was: for metrics.json."""
    facts: dict[str, Any] = {}
    for split, dataset in (("train", setup.train_set), ("val", setup.val_set)):
        counts = Counter[str]()
        for one in dataset.annotations.account.faults():
            counts[one.kind.unit] += one.count
        if counts:
            facts[split] = dict(counts)
    if state.replaced:
        facts["replaced"] = state.replaced
    return {"left_out": facts} if facts else {}


def stopped(stop: StopRequest, folder: RunFolder, where: str) -> str:
    """What is said of a run that was asked to stop."""
    return f"stopped by {stop.reason} {where}; {folder.last} is saved, resume=auto goes on"


def evaluation_is_due(setup: Setup, state: State) -> bool:
    """Whether the weights of this step are to be scored, and have not been."""
    every = setup.config.evaluation.every
    assert every != "auto", "made a number where the parts of a run are built"
    is_turn = state.step == setup.num_steps or bool(every and state.step % every == 0)
    return is_turn and state.step > state.evaluated


def is_over(setup: Setup, state: State) -> bool:
    """Whether nothing is left to train: all steps done, or patience lost over the evaluations."""
    patience = setup.config.patience
    return state.step == setup.num_steps or (patience is not None and state.stale >= patience)


def evaluate_and_keep_best(
    setup: Setup,
    state: State,
    folder: RunFolder,
    log: Log | Silent,
    saver: Saver,
    stop: StopRequest,
) -> dict[str, Any]:
    """The metrics of the weights as they are, which are kept where none were better."""
    is_end = state.step == setup.num_steps
    patience = setup.config.patience
    may_be_last = is_end or (patience is not None and state.stale + 1 >= patience)
    metrics = evaluate(setup, state, folder, folder if may_be_last else None, stop)
    state.evaluated = state.step
    log.evaluation(state.step, metrics)
    log.panels(setup, state)
    ap = metrics["AP"]  # None where the val split has no object: then the latest is best
    state.stale += 1
    if ap is None or ap > state.best_metric:
        state.best_metric, state.stale = ap or 0.0, 0
        saver.best(state)
    if is_end or is_over(setup, state):
        saver.last(state)  # with what the evaluation found
    log.restart_clock(state.step)
    return metrics


def require_few_damaged(setup: Setup, state: State) -> None:
    """Raises DataError where more images than the data's handling lets go were damaged."""
    handling, seen = setup.train_set.handling, state.step * setup.config.batch_size
    most = handling.most(seen)
    if state.replaced > most:
        raise DataError(
            f"{setup.train_set.name}: of {seen} images that were drawn, {state.replaced} could not "
            f"be decoded, {most} may; data.max_dropped={share_above(state.replaced, seen)} or more "
            "goes on"
        )


@dataclass
class Sums:
    """What the micro-batches of a step add up to on this rank.

    positives: () of the whole step, over all ranks. terms: () tensors by name. statistics: what the
    criterion wants for its `update`. expected: the terms of the first step, in that step only.
    """

    positives: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)
    expected: dict[str, float] | None = None


def backward(
    setup: Setup,
    state: State,
    wrapped: nn.Module,
    micro: MicroBatches,
    clock: Stopwatch,
    record: StepRecord | None = None,
) -> Sums:
    """Adds the gradient of a step to the model's; `wrapped` is the model as DDP sees it.

    record: is shown each micro-batch, and changes nothing.
    """
    world, criterion = setup.world, state.criterion
    criterion.progress(state.step / setup.num_steps)
    # Match first: the normaliser is that of the whole step, over ranks and micro-batches.
    with clock("match"):
        step = [(state.model.anchors_for(batch), targets) for batch, targets in micro]
        early = [criterion.match(anchors, targets) for anchors, targets in step]
        sums = Sums(criterion.positives(early, [targets for _, targets in step]))
    if state.step == 0:
        sums.expected = expected_initial_loss(
            criterion, step, state.model.coder, setup.plain["prior"], sums.positives
        )
    scale = state.scaler.scale(torch.ones((), device=world.device))
    for i, (batch, targets) in enumerate(micro):
        is_last = i + 1 == len(micro)
        with nullcontext() if is_last or world.size == 1 else wrapped.no_sync():  # type: ignore[operator]
            with clock("forward"), setup.precision.autocast(world.device):
                predictions: Predictions = wrapped(batch)
            with clock("match"):
                matches = early[i] or criterion.match(predictions.anchors, targets, predictions)
            with clock("loss"):
                judged = criterion.judge(predictions, matches, sums.positives, scale)
            if record is not None:
                terms = criterion(predictions, matches, sums.positives)
                record.add(predictions, matches, terms)
            with clock("backward"), world.waits("the sum of the gradients"):
                judged.backward()
        add(sums.terms, judged.terms)
        add(sums.statistics, criterion.statistics(predictions, matches))
    return sums


def add(totals: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Adds `values` to `totals`, name by name."""
    for name, value in values.items():
        totals[name] = totals[name] + value if name in totals else value


@dataclass(frozen=True)
class Update:
    """What all ranks know of a step alike. terms: of the whole step, by name. norm: of the gradient
    before it is clipped. is_finite: else nothing was changed by it."""

    terms: dict[str, float]
    norm: float
    is_finite: bool
    wants_stop: bool
    damaged: int = 0


def update(
    setup: Setup,
    state: State,
    parameters: list[nn.Parameter],
    sums: Sums,
    stop_requested: bool,
    damaged: int = 0,
) -> Update:
    """The optimizer's step where loss and gradient are finite on every rank, else none at all.

    stop_requested: of this rank; the outcome's `wants_stop` is that of any. damaged: files of this
    rank's share of the step that could not be decoded; the outcome's are those of all ranks.
    """
    config, world, scaler = setup.config, setup.world, state.scaler
    scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(parameters, config.clip or torch.inf)
    # One small read tells every rank the same, so all step or none does; it is the only one.
    own = norm.new_tensor([float(stop_requested), float(damaged)])
    rest = [sums.positives.to(norm), *own, norm]
    facts = torch.stack([*sums.terms.values(), *rest])
    with world.waits("the sum of the facts of the step"):
        facts = (world.sum(facts) / world.size).tolist()  # DDP averages; so does this
    *values, positives, stops, lost, norm_before = facts
    terms = dict(zip(sums.terms, values, strict=True))
    is_finite = all(map(math.isfinite, facts))
    if is_finite:
        scaler.step(state.optimizer)
        state.criterion.update(sums.statistics, terms, positives)
    scaler.update()
    state.optimizer.zero_grad()
    return Update(terms, norm_before, is_finite, stops > 0, round(lost * world.size))
