"""Trains each loss under the same conditions, and says what came of it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.config import from_plain
from detector.config.registry import DATASETS
from detector.data.annotations import Annotations
from detector.errors import ConfigError, Preempted, did_you_mean
from detector.laboratory.compare import search, study, tables
from detector.laboratory.compare.collect import collect
from detector.laboratory.compare.comparison import Comparison
from detector.laboratory.compare.metric import Metric, parse
from detector.laboratory.compare.progress import Progress
from detector.laboratory.compare.study import Arm, Compose, Files, Plain
from detector.runs import launch
from detector.runs.launch import Job, Machine, Result
from detector.runs.run_folder import RunFolder
from detector.runtime.signals import StopRequest
from detector.training.setup import count_steps

REPORT = "detector.laboratory.report.report"


@dataclass(frozen=True)
class Plan:
    """arms and the config of each; steps, epochs: of a run; val: what is scored, as the runs see
    it."""

    arms: list[Arm]
    configs: dict[str, Plain]
    steps: int
    epochs: float
    val: Annotations
    data: Plain


def compare(
    config: Comparison,
    compose: Compose,
    base: Plain,
    folder: Path,
    program: Sequence[str],
    stop: StopRequest | None = None,
) -> int:
    """Trains what is not trained, collects and reports into a folder; the exit code.

    compose: the plain config of a run with further overrides. base: the same without any. program:
    what Python is called with to train, see `Machine`. stop: of a caller that has more to do.
    Raises ConfigError where the folder holds another study, or arms did not see the same images,
    Preempted after a signal.
    """
    stop = stop or StopRequest()
    arms = study.arms_of(config.losses)
    files = Files(folder)
    RunFolder(files.folder).require_writable()
    plan = make_plan(arms, config, compose, base)
    machine = Machine(program, parallel=config.parallel, gpus=launch.visible_gpus())
    chosen = search.learning_rates(plan.configs, config, files, machine, stop)
    for arm in arms:
        plain = study.with_factor(plan.configs[arm.name], chosen.factors[arm.name])
        study.write_config(plain, files.configs, arm.name)
    write_study(files, config, plan, chosen.record)
    plugins = config.train.plugins
    jobs = [
        study.job(f"{arm.name}/seed_{seed}", arm.name, files.configs, seed, plugins=plugins)
        for seed in range(config.seeds)  # seed by seed: a study that is stopped early is balanced
        for arm in arms
    ]
    results = run_all(jobs, files.runs, machine, plan.steps, stop)
    require_not_stopped(results, files, stop)
    return finish(files, plan.val, results, draws=config.draws, metric=parse(config.metric))


def make_plan(arms: list[Arm], config: Comparison, compose: Compose, base: Plain) -> Plan:
    """The configs of all arms, checked, and the data they share. Raises ConfigError, DataError."""
    checked = from_plain(base)
    reader = DATASETS.build(checked.data)
    train, val = reader.read("train").annotations, reader.read("val").annotations
    steps = count_steps(checked, len(train))
    base = study.with_rhythm(base, steps, config.points)
    if "probe" in base:
        base["probe"]["enabled"] = config.probes
    configs = {arm.name: study.conditions(arm, compose, base) for arm in arms}
    for plain in configs.values():
        check(plain)
    require_class(parse(config.metric), val)
    limit = checked.evaluation.limit
    scored = val if limit is None else val.select(range(min(limit, len(val))))
    facts = {"train": describe(train), "val": describe(scored), "name": checked.data.name}
    return Plan(arms, configs, steps, steps * checked.batch_size / len(train), scored, facts)


def require_class(metric: Metric, val: Annotations) -> None:
    """Raises ConfigError for the metric of a class that is not there, before any training."""
    if metric.only is not None and metric.only not in val.classes:
        hint = did_you_mean(metric.only, val.classes)
        known = ", ".join(val.classes)
        raise ConfigError(f"metric: no class {metric.only!r}{hint}; allowed: {known}")


def check(plain: Plain) -> None:
    """Raises ConfigError for what a run would refuse, before the first one is started."""
    from detector.config import check_parts
    from detector.config.registry import LOSSES

    config = from_plain(plain)
    check_parts(config)
    LOSSES.build(config.loss, 1)


def describe(annotations: Annotations) -> Plain:
    """Figures of a split, and what tells it from any other."""
    return {
        "images": len(annotations),
        "objects": len(annotations.labels),
        "classes": list(annotations.classes),
        "fingerprint": annotations.fingerprint,
    }


def write_study(files: Files, config: Comparison, plan: Plan, search: Plain | None) -> None:
    """study.json. Raises ConfigError where it is that of other data."""
    if files.study.exists():
        known = study.read_json(files.study)["data"]
        if known != plan.data:
            raise ConfigError(
                f"output_dir: {files.folder} holds a study of other data: "
                f"{known['name']}, {known['train']['images']} images of {known['train']['classes']}"
            )
    content = {
        "losses": [arm.name for arm in plan.arms],
        "arms": {arm.name: " ".join(arm.words) for arm in plan.arms},
        "seeds": list(range(config.seeds)),
        "steps": plan.steps,
        "epochs": plan.epochs,
        "guided_scale": any(plain["guided_scale"] for plain in plan.configs.values()),
        "lr_search": search,
        "command": study.command(),
        "data": plan.data,
        **study.surroundings(),
    }
    study.write_json(files.study, content)


def run_all(
    jobs: list[Job], folder: Path, machine: Machine, steps: int, stop: StopRequest
) -> list[Result]:
    """Runs what is not done, with one display for all."""
    progress = Progress(jobs, folder, steps)
    try:
        return launch.launch(jobs, folder, machine, progress.say, progress.look, stop)
    finally:
        progress.close()


def require_not_stopped(results: Sequence[Result], files: Files, stop: StopRequest) -> None:
    """Raises Preempted where a signal ended it: the same command goes on."""
    if stop.requested or any(result.exit_code == 75 for result in results):
        left = sum(not result.is_done for result in results)
        raise Preempted(
            f"stopped by a signal with {left} of {len(results)} runs left; the same command "
            f"goes on with {files.folder}"
        )


def finish(
    files: Files,
    val: Annotations,
    results: Sequence[Result],
    *,
    draws: int,
    metric: Metric | None = None,
) -> int:
    """Writes results.json, results.csv, report.md and, where it can, report.html."""
    content = collect(files, val, draws=draws, metric=metric)
    study.write_json(files.results, content)
    tables.write(files, content)
    print("\n".join(content["verdict"]), flush=True)
    print(tables.console(content))
    written = [files.results, files.table, files.report, *html(files.folder)]
    for path in written:
        print(f"written: {path}")
    return launch.exit_code(results)


def html(folder: Path) -> list[Path]:
    """The report as a page with figures, where what draws it is installed."""
    for module in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(module) is None:
            print(f"no report.html: {module} is not installed; pip install {module}")
            return []
    report: Any = importlib.import_module(REPORT)
    return [report.write_report(folder)]
