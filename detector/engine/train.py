"""The training page: one optimizer step from top to bottom, without hooks."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import detector
from detector import distributed
from detector.config import Config, to_yaml
from detector.data.loader import train_batches
from detector.distributed import World
from detector.engine import checkpoint
from detector.engine.evaluate import evaluate, report
from detector.engine.initial_loss import MicroBatches, foretell
from detector.engine.log import Log, Silent
from detector.engine.precision import processor_name
from detector.engine.run_folder import RunFolder, open_folder
from detector.engine.setup import Setup, State, build
from detector.engine.signals import StopRequest
from detector.engine.stopwatch import Stopwatch
from detector.errors import DataError, DivergedError, Preempted, UserError
from detector.startup import check_versions
from detector.structures import Predictions, to_device


def train(setup: Setup, state: State, folder: RunFolder, log: Log | Silent) -> dict[str, Any]:
    """Trains from `state.step` to the end of the run; the metrics of the last evaluation.

    Raises DivergedError after `max_bad_steps` steps in a row whose loss or gradient is not finite,
    Preempted after a signal asked for an end; `last.pt` is saved first in the second case.
    """
    config, world = setup.config, setup.world
    model, loss, optimizer, scaler = state.model, state.loss, state.optimizer, state.scaler
    wrapped = world.wrap(model).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    stop = StopRequest()
    clock = Stopwatch(world.device, config.profile)
    bad_steps = 0
    metrics: dict[str, Any] = {}
    batches = iter(
        train_batches(
            setup.train_set,
            setup.augment,
            seed=config.seed,
            batch_size=config.batch_size,
            micro_batch=setup.micro_batch,
            rank=world.rank,
            world_size=world.size,
            start_step=state.step,
            stop_step=setup.num_steps,
            num_workers=config.loader.workers,
            timeout=config.loader.timeout,
            pin_memory=world.device.type == "cuda",
        )
    )
    while state.step < setup.num_steps:
        rate = setup.learning_rate * setup.schedule(state.step, setup.num_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate

        with clock("data"):
            micro = [next(batches) for _ in range(setup.accumulation)]
        micro = [(to_device(b, world.device), to_device(t, world.device)) for b, t in micro]
        sums = backward(setup, state, wrapped, micro, clock)

        # Guard: one small read tells every rank the same, so all step or none does.
        with clock("optimizer"):
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(parameters, config.clip or torch.inf)
            rest = [sums.positives.to(norm), norm.new_tensor(float(stop.requested))]
            facts = torch.stack([*sums.terms.values(), *rest])
            facts = (world.sum(facts) / world.size).tolist()  # DDP averages; so does this
            *terms, positives, stops = facts
            values = dict(zip(sums.terms, terms, strict=True))
            is_finite = math.isfinite(norm) and all(map(math.isfinite, facts))
            if is_finite:
                scaler.step(optimizer)
                loss.update({name: world.sum(v) for name, v in sums.statistics.items()})
                state.balance.update(values, positives)
            scaler.update()
            optimizer.zero_grad()
            if is_finite and state.ema is not None:
                state.ema.update(model, state.step)
        if sums.foretold is not None:
            log.initial(sums.foretold, values)
        values = {"loss": sum(terms), **values}
        bad_steps = 0 if is_finite or scaler.get_scale() > 1 else bad_steps + 1
        state.step += 1
        if not is_finite:
            log.say(
                f"step {state.step}: loss {values['loss']}, gradient {float(norm)}: step skipped"
            )
            if bad_steps >= config.max_bad_steps:
                ids = [i for batch, _ in micro for i in batch.image_ids]
                raise DivergedError(
                    f"step {state.step}: loss or gradient not finite {bad_steps} times in a row; "
                    f"the last images were {ids}; a smaller optim.lr or clip, or a longer warm-up"
                )

        log.advance()
        is_end, wants_stop = state.step == setup.num_steps, stops > 0
        if is_end:  # also before the last evaluation, which may fail and can be made again
            save(setup, state, folder.last)
        if state.step % config.log_every == 0 or is_end:
            values |= {"lr": rate, "grad_norm": float(norm), **clock.take()}
            log.step(state.step, values, config.batch_size)
        if is_end or (config.evaluation.every and state.step % config.evaluation.every == 0):
            metrics = evaluate(setup, state, folder if is_end else None)
            log.evaluation(state.step, metrics)
            log.panels(setup, state)
            ap = metrics["AP"]  # None where the val split has no object: then the latest is best
            if ap is None or ap > state.best_metric:
                state.best_metric = ap or 0.0
                save(setup, state, folder.best)
            wrapped.train()
            log.restart_clock(state.step)
        if is_end or wants_stop or (config.save_every and state.step % config.save_every == 0):
            save(setup, state, folder.last)
        if wants_stop and not is_end:
            raise Preempted(f"stopped by a signal after step {state.step}; {folder.last} is saved")
    if config.profile:
        log.say(clock.table())
    return metrics or evaluate(setup, state, folder)  # a finished run that is resumed is scored


@dataclass
class Sums:
    """What the micro-batches of a step add up to on this rank.

    positives: () of the whole step, over all ranks. terms: () tensors by name. statistics: what the
    loss wants for its `update`. foretold: by `initial_loss`, in the first step only.
    """

    positives: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)
    foretold: dict[str, float] | None = None


def backward(
    setup: Setup, state: State, wrapped: nn.Module, micro: MicroBatches, clock: Stopwatch
) -> Sums:
    """Adds the gradient of a step to the model's; `wrapped` is the model as DDP sees it."""
    world, loss, matcher = setup.world, state.loss, setup.matcher
    progress = state.step / setup.num_steps
    weights = setup.ramps.apply(progress, loss=loss, box_loss=setup.box_loss)
    # Match first: the normaliser is that of the whole step, over ranks and micro-batches.
    with clock("match"):
        early = [
            None
            if matcher.uses_predictions
            else matcher(state.model.anchors_for(batch), targets, None)
            for batch, targets in micro
        ]
        sums = Sums(setup.weighting.positives(early, [targets for _, targets in micro]))
    if state.step == 0:
        sums.foretold = foretell(setup, state, micro, sums.positives)
    for i, (batch, targets) in enumerate(micro):
        is_last = i + 1 == len(micro)
        with nullcontext() if is_last or world.size == 1 else wrapped.no_sync():  # type: ignore[operator]
            with clock("forward"), setup.precision.autocast(world.device):
                predictions: Predictions = wrapped(batch)
            with clock("match"):
                matches = early[i] or matcher(predictions.anchors, targets, predictions)
            with clock("loss"):
                terms = setup.weighting(
                    loss,
                    setup.box_loss,
                    weights,
                    predictions,
                    matches,
                    sums.positives,
                    state.balance,
                )
            with clock("backward"):
                state.scaler.scale(torch.stack([*terms.values()]).sum()).backward()
        add(sums.terms, {name: term.detach() for name, term in terms.items()})
        add(sums.statistics, loss.statistics(predictions, matches))
    return sums


def add(totals: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Adds `values` to `totals`, name by name."""
    for name, value in values.items():
        totals[name] = totals[name] + value if name in totals else value


def save(setup: Setup, state: State, path: Path) -> None:
    """Writes a checkpoint, on the main process only."""
    if not setup.world.is_main:
        return
    annotations = setup.train_set.annotations
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "detector_version": detector.__version__,
        "torch_version": str(torch.__version__),  # a class of torch, which `load` refuses
        "config": setup.plain,
        "classes": list(annotations.classes),
        "category_ids": [int(i) for i in annotations.category_ids],
        "fingerprint": annotations.fingerprint,
        "evaluator": setup.config.evaluation.evaluator,
    }
    checkpoint.save(path, facts | state.state_dict())


def run(config: Config, plain: dict[str, Any]) -> None:
    """Everything `tools/train.py` does. Raises UserError for all that a user can mend."""
    check_versions()
    world = distributed.start(config.device)
    try:
        _run(config, plain, world)
    finally:
        distributed.stop()


def _run(config: Config, plain: dict[str, Any], world: World) -> None:
    began = time.perf_counter()
    plain = {"prior": config.prior, **plain}  # its number is saved, so the key is always there
    folder, resumed = open_folder(config, plain, world)
    world.gather(None)  # all have looked at the folder before one of them writes into it
    setup, state = build(config, plain, world)
    if resumed is not None:
        require_same_data(setup, resumed)
        state.load_state_dict(resumed)
    if world.is_main:
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.config.write_text(to_yaml(setup.plain))
        folder.write_status("running", step=state.step)
        log: Log | Silent = Log(folder, setup.num_steps, state.step, config.tensorboard)
    else:
        log = Silent()
    introduce(setup, state, folder, log)
    try:
        metrics = train(setup, state, folder, log)
    except BaseException as error:
        if world.is_main:
            _write_failure(folder, state, error)
        raise
    finally:
        log.close()
    if world.is_main:
        folder.write_status("done", step=state.step, exit_code=0)
        report(metrics, folder)
        seconds = time.perf_counter() - began
        print(f"{seconds:.0f} s in all on {processor_name()}, {torch.get_num_threads()} threads")


def require_same_data(setup: Setup, resumed: dict[str, Any]) -> None:
    """Raises DataError where a checkpoint was trained on other annotations."""
    if resumed["fingerprint"] != setup.train_set.annotations.fingerprint:
        raise DataError(
            f"resume: {setup.train_set.name} is not the data the checkpoint was made with"
        )


def introduce(setup: Setup, state: State, folder: RunFolder, log: Log | Silent) -> None:
    """Says what is about to be trained, on what, and where it will lie."""
    config, world = setup.config, setup.world
    log.say(f"run folder: {folder.path}")
    for split, dataset in (("train", setup.train_set), ("val", setup.val_set)):
        for line in dataset.annotations.summary():
            log.say(f"{split}: {line}")
    log.say(
        f"{world.size} x {world.device}, {setup.precision.name} ({setup.precision.reason}); "
        f"a step is {config.batch_size} images, {setup.micro_batch} at a time on a device"
    )
    parameters = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    log.say(
        f"loss {config.loss.name}, box loss {config.box_loss.name}, "
        f"prior {setup.plain['prior']:.4g}, {parameters / 1e6:.2f} M parameters, "
        f"steps {state.step} to {setup.num_steps}"
    )


def _write_failure(folder: RunFolder, state: State, error: BaseException) -> None:
    names = {DivergedError: "diverged", Preempted: "preempted"}
    code = error.exit_code if isinstance(error, UserError) else 1
    folder.write_status(
        names.get(type(error), "failed"), step=state.step, exit_code=code, message=str(error)
    )
