"""COCO's numbers, and an analysis where it is asked for: of a run, a checkpoint, or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.config import Config, EvaluationConfig, Evaluator
from detector.config import Precision as PrecisionName
from detector.config.schema import require
from detector.data.images import read_inside, require_folder
from detector.data.readers.base import Dataset, Split
from detector.errors import ConfigError, DataError
from detector.evaluation import coco, files
from detector.inference.graph import load_graph
from detector.inference.load import is_graph
from detector.inference.predictor import config_of, restore
from detector.inference.score import measure, score, write_metrics, write_pictures
from detector.inference.splits import read_split, with_data
from detector.runs import checkpoint
from detector.runs.run_folder import RunFolder
from detector.runtime import distributed

if TYPE_CHECKING:
    from detector.inference.pictures import Pixels


CUT_FROM = 0.1
"""A lowest score from which detections were probably cut off by a threshold: a curve then ends."""


@dataclass(frozen=True)
class Evaluation:
    """metrics: COCO's numbers, and an analysis where it was asked for. folder: where they were
    written. is_main: whether this process is the one that prints."""

    metrics: dict[str, Any]
    folder: RunFolder
    is_main: bool = True

    def report(self) -> None:
        """Prints the tables, on the main process."""
        if self.is_main:
            report(self.metrics, self.folder)


def report(metrics: dict[str, Any], folder: RunFolder) -> None:
    """Prints the COCO table, the per-class AP, the analysis and where everything lies."""
    print(coco.table(metrics))
    evaluator = metrics["evaluator"]
    print(f"by {evaluator['name']} {evaluator['version']}, {metrics['images']} images\n")
    for warning in metrics.get("warnings", ()):
        print(f"WARNING: {warning}\n")
    if "analysis" in metrics:
        from detector.analysis.report import Report  # loaded where it is used

        print("\n".join(Report(**metrics["analysis"]).table()), end="\n\n")
    names = {"config": folder.config, "log": folder.log, "metrics": folder.metrics}
    names |= {"detections": folder.detections, "last": folder.last, "best": folder.best}
    names |= {"figures": folder.figures, "worst": folder.worst}
    for name, path in names.items():
        if path.exists():
            print(f"{name:>10}  {path}")


def require_pictures(config: EvaluationConfig) -> None:
    """Raises ConfigError where pictures are to be drawn at the end and cannot be."""
    if config.analysis and config.pictures:
        from detector.plots.style import require_matplotlib  # loaded where it is used

        require_matplotlib()


def evaluate(
    path: str | Path,
    *,
    output_dir: str | Path | None = None,
    split: Split = "val",
    data: Mapping[str, Any] | None = None,
    data_root: str | None = None,
    limit: int | None = None,
    analysis: bool | None = None,
    calibrated: bool = False,
    draws: int = 500,
    pictures: bool = True,
    worst: int = 10,
    seed: int = 0,
    evaluator: Evaluator | None = None,
    max_detections: int | None = None,
    device: str = "auto",
    precision: PrecisionName | None = None,
) -> Evaluation:
    """Scores a checkpoint, or an exported graph, on a split of its own data or on any others;
    nothing but the file and that split is needed.

    Writes metrics.json, detections.json and the pictures of an analysis into `output_dir`
    (default: beside the checkpoint, in `evaluation`, or `evaluation_test` and the like). split:
    "val", which chose best.pt, so that its score is a little too good; "test", which chose nothing;
    "train". data: other data, {"name": "coco", "root": DIR}, with classes of the same names in any
    order; without a `name`, other options of its own. data_root: where its own data lie now. limit:
    the first images by id only; None: all of them, whatever the training did. analysis:
    calibration, errors and operating points too, with `pictures` and `worst` images of each kind;
    None: as the config says. calibrated: scores are mapped by the stored calibrator first. draws,
    seed: of the intervals. evaluator, max_detections (of an image, that count), precision: None
    takes those of the config.

    Raises ConfigError for a file that is no checkpoint, DataError where the data do not have its
    classes.
    """
    graph = load_graph(path) if is_graph(path) else None
    saved = checkpoint.load(path) if graph is None else {}
    trained = config_of(saved, str(path)) if graph is None else graph.config
    config = at_root(with_data(trained, data), data_root)
    evaluation = with_analysis(
        config.evaluation, analysis, evaluator, draws, pictures, worst, max_detections
    )
    evaluation = replace(evaluation, limit=limit)
    config = replace(config, evaluation=evaluation, precision=precision or config.precision)
    require_pictures(config.evaluation)
    folder = RunFolder(Path(output_dir or Path(path).parent / folder_name(split, data)))
    folder.require_writable()
    world = distributed.start(device)
    try:
        if graph is None:
            predictor = restore(saved, config, str(path), world.device)
        else:
            require(precision is None, f"precision: {precision} given, a graph has its own")
            predictor = graph
            predictor.config = config
        known = predictor.classes, predictor.category_ids
        dataset = read_split(*known, config.data, split, str(path))
        if world.is_main:
            print(f"{split} split: {dataset.name}")
        calibrator = predictor.require_calibration().calibrator if calibrated else None
        metrics = score(predictor, dataset, world, folder=folder, calibrator=calibrator, seed=seed)
        return Evaluation(metrics, folder, world.is_main)
    finally:
        distributed.stop()


def evaluate_detections(
    detections: str | Path,
    annotations: str | Path,
    *,
    images: str | None = None,
    output_dir: str | Path | None = None,
    analysis: bool | None = True,
    draws: int = 500,
    pictures: bool = True,
    worst: int = 10,
    seed: int = 0,
    evaluator: Evaluator | None = None,
    max_detections: int | None = None,
) -> Evaluation:
    """Scores COCO results of any detector against a COCO ground truth, with an analysis.

    Writes metrics.json and the pictures into `output_dir` (default: `evaluation` beside the
    results). images: the folder of the images, to draw the worst of them. The other options are
    those of `evaluate`. Raises DataError that names the file and the entry for what
    makes no sense.
    """
    source = Path(detections)
    start = EvaluationConfig(analysis=True)
    config = with_analysis(start, analysis, evaluator, draws, pictures, worst, max_detections)
    require_pictures(config)
    folder = RunFolder(Path(output_dir or source.parent / "evaluation"))
    folder.require_writable()
    truth, done = files.read_with_notes(Path(annotations))
    rows = files.read_detections(source, truth, done)
    for line in done.lines():
        print(f"{annotations}: {line}")
    if config.analysis:
        files.check_scores(source, rows)
    lowest = min((row["score"] for row in rows), default=0.0)
    if lowest >= CUT_FROM:
        print(f"{source}: no score is below {lowest:.2g}, and AP is that of these alone")
    rows = coco.sort_results(rows)
    pixels = pixels_of(truth, images) if images is not None else None
    metrics = measure(truth, rows, config, seed=seed)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_metrics(folder.metrics, metrics)
    write_pictures(truth, rows, metrics, config, folder, pixels)
    return Evaluation(metrics, folder)


def pixels_of(truth: files.Truth, images: str) -> Pixels:
    """Reads the image of an id from a folder, and nothing outside of it. Raises DataError where
    there is no such folder."""
    folder = require_folder(Path(images), "images")
    names = {row["id"]: row.get("file_name") for row in truth["images"]}

    def read(image_id: int) -> Any:
        name = names[image_id]
        if not isinstance(name, str):
            raise DataError(f"annotations: image {image_id} has no file_name to be drawn from")
        return read_inside(folder, name, 100.0, key="images")

    return read


def with_analysis(
    config: EvaluationConfig,
    analysis: bool | None,
    evaluator: Evaluator | None,
    draws: int,
    pictures: bool,
    worst: int,
    max_detections: int | None = None,
) -> EvaluationConfig:
    """The evaluation with other options of its analysis; None keeps what it says."""
    return replace(
        config,
        analysis=config.analysis if analysis is None else analysis,
        evaluator=evaluator or config.evaluator,
        draws=draws,
        pictures=pictures,
        worst=worst,
        max_detections=max_detections or config.max_detections,
    )


def at_root(config: Config, data_root: str | None) -> Config:
    """The config with its data where they lie now. Raises DataError where they do not."""
    options = dict(config.data.options)
    if data_root is not None:
        if "root" not in options:
            raise ConfigError(f"data_root: {config.data.name} data have no root")
        options["root"] = data_root
    root = options.get("root")
    if isinstance(root, str) and not Path(root).expanduser().is_dir():
        raise DataError(
            f"data.root={root}: there is no such folder; data_root= says where the data lie now"
        )
    return replace(config, data=replace(config.data, options=options))


def val_set(
    classes: Sequence[str], category_ids: Sequence[int], config: Config, path: str
) -> Dataset:
    """The val split. Raises DataError where its classes are not those of the model at `path`."""
    return read_split(classes, category_ids, config.data, "val", path)


def folder_name(split: Split, data: Mapping[str, Any] | None) -> str:
    """Where an evaluation lies beside its checkpoint, so that that of another split or of other
    data does not take the place of the first."""
    other = str(data["name"]) if data and "name" in data else ""
    words = ["evaluation", other, "" if split == "val" else split]
    return "_".join(word for word in words if word)
