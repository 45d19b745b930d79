"""How well scores of several losses are calibrated, from the folders of finished runs:
`python docs/studies/calibration_study.py folder=FOLDER`.

Nothing is trained and no model is run: a run folder holds its detections, its config the data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from calibration_page import as_json, of_page, write_block
from omegaconf import DictConfig

from detector.analysis import calibration, held_out
from detector.analysis.calibrators import Calibrator
from detector.analysis.curves import mean
from detector.analysis.held_out import Halves
from detector.cli import hydra_app
from detector.cli.options import checked, start
from detector.config import Config, from_plain
from detector.config.registry import DATASETS, LOSSES
from detector.config.schema import require_at_least
from detector.data.annotations import Annotations
from detector.errors import ConfigError, DataError
from detector.evaluation import coco
from detector.inference.calibrated import link_of
from detector.inference.evaluate import at_root
from detector.runs.run_folder import RunFolder

Table = dict[str, Any]


@dataclass(frozen=True)
class CalibrationStudyConfig:
    """What the study is told. See `configs/calibration_study.yaml`."""

    folder: str
    losses: tuple[str, ...] = ()
    output: str = "docs/studies/calibration_bccd.json"
    page: str = "docs/calibration.md"
    min_detections: int = 50
    draws: int = 500
    seed: int = 0
    data_root: str | None = None
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_at_least(1, self, "min_detections")
        require_at_least(0, self, "draws", "seed")


@dataclass(frozen=True)
class Settings:
    """How runs are measured.

    min_detections: a class with fewer takes the map of all classes. draws: of the bootstrap, for
    intervals; 0: none. seed: of the draw that splits the images, and of the bootstrap.
    """

    min_detections: int = 50
    draws: int = 500
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """What a run has to say. fitted: by method, those that a loss has and that could be fitted."""

    loss: str
    seed: int
    ap: float | None
    halves: Halves
    fitted: dict[str, Calibrator | None]
    held_out_ap: dict[str, float | None]


def study(
    folder: Path, losses: Sequence[str], settings: Settings, data_root: str | None = None
) -> Table:
    """The numbers of all finished runs below the folder, of these losses or of all there are.

    data_root: where the data lie now; None: where they lay in training. Raises ConfigError where
    there is no finished run, DataError where runs are of other data.
    """
    folders = find(folder, losses)
    configs = [read_config(folder, data_root) for folder in folders]
    val = val_annotations(configs, folders)
    truth = coco.ground_truth(val)
    runs = [
        read_run(folder, config, truth, settings)
        for folder, config in zip(folders, configs, strict=True)
    ]
    names = list(dict.fromkeys(run.loss for run in runs))
    return {
        "data": configs[0].data.name,
        "images": {
            "fit": int(runs[0].halves.chosen.sum()),
            "test": int((~runs[0].halves.chosen).sum()),
        },
        "steps": sorted({read_steps(folder) for folder in folders}),
        "draws": settings.draws,
        "seed": settings.seed,
        "conventions": {m.name: m.convention for m in calibration.MEASURES},
        "losses": {name: of_loss([r for r in runs if r.loss == name], settings) for name in names},
        "against": {"loss": names[0], "changes": against(runs, names, settings)},
    }


def find(folder: Path, losses: Sequence[str]) -> list[Path]:
    """The finished runs FOLDER/runs/LOSS/seed_N, of the given losses in their order."""
    known = sorted(path.name for path in (folder / "runs").glob("*") if path.is_dir())
    unknown = [name for name in losses if name not in known]
    if unknown:
        raise ConfigError(
            f"losses: {', '.join(unknown)} not among {folder / 'runs'}: {', '.join(known) or '-'}"
        )
    chosen = losses or known
    found = [path for name in chosen for path in sorted((folder / "runs" / name).glob("seed_*"))]
    done = [path for path in found if RunFolder(path).read_status().get("state") == "done"]
    if not done:
        raise ConfigError(f"folder: {folder} holds no finished run under runs/LOSS/seed_N")
    return done


def read_config(folder: Path, data_root: str | None) -> Config:
    """The config of a run, its data where they lie now."""
    return at_root(from_plain(yaml.safe_load(RunFolder(folder).config.read_text())), data_root)


def read_steps(folder: Path) -> int:
    """How many steps a run took."""
    return int(RunFolder(folder).read_status()["step"])


def val_annotations(configs: Sequence[Config], folders: Sequence[Path]) -> Annotations:
    """Those of the val split, which all runs have to share."""
    for config, folder in zip(configs, folders, strict=True):
        if config.data != configs[0].data:
            raise DataError(f"{folder}: other data than {folders[0]}; a comparison needs the same")
        if config.evaluation.limit is not None:
            raise DataError(f"{folder}: evaluation.limit is {config.evaluation.limit}, not null")
    return DATASETS.build(configs[0].data).read("val").annotations


def read_run(folder: Path, config: Config, truth: Any, settings: Settings) -> Run:
    """The detections of a run in halves, and all calibrators that can be fitted to one."""
    run = RunFolder(folder)
    rows = json.loads(run.detections.read_text())
    halves = held_out.halve(truth, rows, seed=settings.seed)
    link = link_of(LOSSES.build(config.loss, len(truth["categories"])))
    fitted: dict[str, Calibrator | None] = {}
    for method in held_out.methods_for(link):
        try:
            fitted[method] = held_out.fit(
                halves, method, link=link, target="hit", min_detections=settings.min_detections
            )
        except DataError:  # nothing right, or nothing wrong, to learn from: the page says so
            continue
    return Run(
        loss=config.loss.name,
        seed=config.seed,
        ap=json.loads(run.metrics.read_text())["AP"],
        halves=halves,
        fitted=fitted,
        held_out_ap={
            method: held_out.average_precision(truth, rows, halves, own)
            for method, own in fitted.items()
        },
    )


def of_loss(runs: Sequence[Run], settings: Settings) -> Table:
    """Each run, and the mean over its seeds with intervals from the same draws of images."""
    common = [m for m in runs[0].fitted if all(m in run.fitted for run in runs)]
    return {
        "seeds": [run.seed for run in runs],
        "AP": {"seeds": [run.ap for run in runs], "mean": _mean([run.ap for run in runs])},
        "mean": {method: measured(runs, method, settings) for method in common},
        "runs": {
            str(run.seed): {method: measured([run], method, settings) for method in run.fitted}
            for run in runs
        },
    }


COMPARED = ("none", "platt")
"""Methods under which losses are compared: as they are, and once the best has been made of each."""


def against(runs: Sequence[Run], names: Sequence[str], settings: Settings) -> Table:
    """{loss: {method: {"all" | "shown": {measure: change}}}} of each loss but the first, from the
    first, on the same images; methods that one of the two lacks are left out."""
    found: Table = {name: {} for name in names[1:]}
    for method in COMPARED:
        sets = {}
        for name in names:
            mine = [run for run in runs if run.loss == name]
            if all(method in run.fitted for run in mine):
                fitted = [run.fitted[method] for run in mine]
                sets[name] = held_out.sets([run.halves for run in mine], fitted)
        for name in found:
            if name in sets and names[0] in sets:
                found[name][method] = {
                    which: {
                        key: asdict(change)
                        for key, change in calibration.changes(
                            sets[names[0]][which], part, draws=settings.draws, seed=settings.seed
                        ).items()
                    }
                    for which, part in sets[name].items()
                }
    return found


def measured(runs: Sequence[Run], method: str, settings: Settings) -> Table:
    """AP and every measure of a method on the held-out half, means over the runs."""
    tables = held_out.measured(
        [run.halves for run in runs],
        [run.fitted[method] for run in runs],
        draws=settings.draws,
        seed=settings.seed,
    )
    for rows in tables.values():
        for row in rows.values():
            del row["convention"]  # stated once, for all
    return {"AP": _mean([run.held_out_ap[method] for run in runs]), **tables}


def _mean(values: Sequence[float | None]) -> float | None:
    return mean(np.array(values, dtype=np.float64))


def run(node: DictConfig) -> None:
    """Writes the numbers of the page as JSON, and the tables into the page."""
    options = checked(CalibrationStudyConfig, node)
    start(options.plugins)
    settings = Settings(options.min_detections, options.draws, options.seed)
    found = study(Path(options.folder), options.losses, settings, options.data_root)
    found = of_page(found)
    target = Path(options.output)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(as_json(found) + "\n")
    write_block(Path(options.page), found)
    runs = sum(len(loss["seeds"]) for loss in found["losses"].values())
    print(f"{runs} runs; written: {options.output}, {options.page}")


if __name__ == "__main__":
    hydra_app.main("calibration_study", run)
