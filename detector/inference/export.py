"""Exports a model, and shows that what comes out finds the same boxes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import detector
from detector.config import Config, from_plain
from detector.config.ranges import Between, require_ranges
from detector.config.registry import DATASETS
from detector.config.schema import require
from detector.data.images import list_images, read_pixels
from detector.errors import ConfigError, DataError
from detector.inference import onnx, pt2
from detector.inference.evaluate import at_root
from detector.inference.graph import GraphPredictor, load_graph
from detector.inference.load import GRAPHS
from detector.inference.meaning import FORMAT_VERSION, OUTPUTS, preprocess_config, preprocessing
from detector.inference.modules import Found, Inside, Outputs, suppress_by_torchvision
from detector.inference.predictor import Predictor, config_of, restore
from detector.inference.preprocess import preprocess
from detector.inference.restate import restate
from detector.inference.score import score
from detector.inference.verify import BOUNDS, MAX_LOSS_OF_AP, Agreement, compare
from detector.runs import checkpoint
from detector.runtime.distributed import World

ALONE = World(0, 1, torch.device("cpu"))

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportOptions:
    """What a graph is to be.

    outputs: "raw" ends at logits and deltas, "detections" holds what follows them. precision: of
    the numbers; int8 leaves layers in float32 where AP asks for it. threshold, calibrated: of
    outputs=detections, inside the graph. shape: N, H, W; None leaves them free. licence: of the
    weights, in the words of whoever exports; it goes into the metadata.
    """

    outputs: Literal["raw", "detections"] = "raw"
    precision: Literal["float32", "float16", "int8"] = "float32"
    threshold: Annotated[float, Between(0, 1, is_below=True)] = 0.0
    calibrated: bool = False
    shape: tuple[int, int, int] | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        require_ranges(self)
        for key in ("threshold", "calibrated"):
            is_fit = not getattr(self, key) or self.outputs == "detections"
            require(is_fit, f"{key}: given with outputs=raw, outputs=detections is needed")
        if self.shape is not None:
            is_fit = len(self.shape) == 3 and min(self.shape) > 0
            is_fit = is_fit and all(side % 32 == 0 for side in self.shape[1:])
            require(
                is_fit,
                f"shape: {list(self.shape)} given, [N, H, W] is needed, H and W multiples of 32",
            )


@dataclass(frozen=True)
class Exported:
    """path: what was written. agreement: with the checkpoint, None where it was not looked at, or
    judged by ap: that of the checkpoint and of the graph."""

    path: Path
    agreement: Agreement | None = None
    ap: tuple[float, float] | None = None

    def lines(self) -> list[str]:
        """What was compared, for a terminal."""
        if self.ap is not None:
            return [f"AP on val: {self.ap[0]:.4f} of the checkpoint, {self.ap[1]:.4f} of the graph"]
        if self.agreement is None:
            return ["not compared with its checkpoint"]
        return [*self.agreement.table(), f"the same as the checkpoint: {self.agreement}"]


def export(
    path: str | Path,
    output: str | Path,
    options: ExportOptions = ExportOptions(),
    *,
    overwrite: bool = False,
    verify: bool = True,
    images: str | None = None,
    num_images: int = 8,
    data_root: str | None = None,
    say: Say = lambda _: None,
) -> Exported:
    """Writes the model of a checkpoint as NAME.onnx, NAME.xml (with NAME.bin) or NAME.pt2.

    verify: both are compared on real images, and a file that does not find what the checkpoint
    finds is not written. images: a folder of these; None: those of the val split of the
    checkpoint's data, which int8 needs in any case; data_root: where they lie now. say: is told of
    each step. Raises ConfigError where a library is missing, where something of the model cannot be
    exported, and where the comparison fails.
    """
    target = Path(output)
    require_target(target, options, overwrite=overwrite)
    predictor = exported_predictor(path, data_root)
    meaning = meaning_of(path, predictor, options)
    is_int8 = options.precision == "int8"
    pixels = [] if is_int8 or not verify else list(some_images(predictor, images, num_images))
    target.parent.mkdir(parents=True, exist_ok=True)
    # In a folder of its own, since a file of OpenVINO's is two, and others leave more beside.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        made = Path(folder) / target.name
        if is_int8:
            ap = write_in_8_bits(predictor, meaning, options, made, say)
            done = Exported(target, ap=ap)
        else:
            say("following the model, which takes the exporter a minute for a large one")
            write(predictor, meaning, options, made)
            done = Exported(target)
        if pixels:
            say(f"comparing with the checkpoint on {len(pixels)} images")
            reference = reference_for(path, predictor, data_root)
            agreement = agreement_with(reference, load_graph(made), pixels, options.precision)
            if not agreement.is_same:
                raise ConfigError(
                    f"output: the graph does not find what {path} finds, so it is not written: "
                    f"{agreement}"
                )
            done = replace(done, agreement=agreement)
        for file in Path(folder).iterdir():
            if file.stem == target.stem:
                os.replace(file, target.with_name(file.name))
    return done


def verify(
    path: str | Path,
    graph: str | Path,
    *,
    images: str | None = None,
    num_images: int = 8,
    data_root: str | None = None,
) -> Exported:
    """How an exported file that is there agrees with its checkpoint, on any images.

    INT8 is judged by AP on the val split. Raises ConfigError where it was made of another
    checkpoint, and where they do not agree.
    """
    model = load_graph(graph)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    require(
        model.meaning.get("checkpoint_sha256") == digest,
        f"output: {graph} was not made of {path}: the checkpoint's SHA-256 is another",
    )
    predictor = exported_predictor(path, data_root)
    if model.meaning["precision"] == "int8":
        ap = average_precision(predictor, predictor.config), 0.0
        ap = ap[0], average_precision(model, predictor.config)
        require(
            ap[1] >= ap[0] - MAX_LOSS_OF_AP,
            f"output: {graph} has an AP of {ap[1]:.4f} on val, {path} {ap[0]:.4f}",
        )
        return Exported(Path(graph), ap=ap)
    pixels = list(some_images(predictor, images, num_images))
    agreement = agreement_with(predictor, model, pixels, model.meaning["precision"])
    if not agreement.is_same:
        table = " | ".join(" ".join(line.split()) for line in agreement.table())
        raise ConfigError(f"output: {graph} does not find what {path} finds: {table}")
    return Exported(Path(graph), agreement)


def require_target(target: Path, options: ExportOptions, *, overwrite: bool) -> None:
    """Raises ConfigError for a name of no format, a file that is there, what a format has not."""
    require(
        target.suffix in GRAPHS,
        f"output: {target} given, a name that ends in {', '.join(GRAPHS)} is needed",
    )
    is_free = overwrite or not target.exists()
    require(is_free, f"output: {target} is already there; overwrite=true replaces it")
    is_fit = options.precision != "int8" or target.suffix == ".onnx"
    require(is_fit, "precision: int8 is written as NAME.onnx alone")


def exported_predictor(path: str | Path, data_root: str | None) -> Predictor:
    """The model of a checkpoint on the CPU, in float32: bfloat16, which `auto` may take, would not
    give the graph's boxes."""
    saved = checkpoint.load(path)
    plain = {**saved["config"], "precision": "float32"}
    config = config_of({**saved, "config": plain}, str(path))
    if data_root is not None:
        config = at_root(config, data_root)
    return restore(saved, config, str(path), torch.device("cpu"))


def reference_for(path: str | Path, predictor: Predictor, data_root: str | None) -> Predictor:
    """The model to compare with: read anew where the export has changed it to half precision."""
    is_whole = next(predictor.model.parameters()).dtype == torch.float32
    return predictor if is_whole else exported_predictor(path, data_root)


def meaning_of(path: str | Path, predictor: Predictor, options: ExportOptions) -> dict[str, Any]:
    """What the file says of itself. Raises ConfigError for what a graph cannot say."""
    saved = checkpoint.load(path)
    # As it is in the checkpoint, which need not know where the data lie now.
    config = from_plain(saved["config"])
    require(
        config.model.anchors.stride_mode == "fixed",
        "model.anchors.stride_mode: image cannot be exported, since such anchors depend on more "
        "than the size of the map",
    )
    prepared = preprocessing(config)  # raises for an augmentation that only its plugin knows
    stored = saved.get(checkpoint.CALIBRATION)
    own = None if stored is None else stored["calibrator"]
    require(
        own is None or own.get("kind") != "link_inverse",
        "calibrated: what is stored is the loss's link inverse, which needs this project's losses; "
        "detector calibrate method=platt writes one that can be exported",
    )
    if options.calibrated:
        stored_calibration = predictor.require_calibration()
        is_there = stored_calibration.calibrator is not None
        require(is_there, "calibrated: true given, but method=none was stored")
    return {
        "format_version": FORMAT_VERSION,
        "detector_version": detector.__version__,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "config": saved["config"] | {"output_dir": None, "resume": None, "weights": None},
        "classes": list(predictor.classes),
        "category_ids": list(predictor.category_ids),
        "layout": predictor.layout.name,
        "outputs": options.outputs,
        "precision": options.precision,
        "threshold": options.threshold,
        "calibrated": options.calibrated,
        "shape": None if options.shape is None else list(options.shape),
        "preprocessing": prepared,
        "calibration": stored,
        "checkpoint_sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "step": saved.get("step"),
        "licence": options.licence,
    }


def write(
    predictor: Predictor, meaning: dict[str, Any], options: ExportOptions, path: Path
) -> None:
    """The file, in the format of its name. float16 changes the model in place."""
    is_half = options.precision == "float16"
    is_openvino = path.suffix == ".xml"
    model = predictor.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    # OpenVINO stores float16 and computes as the processor can; its graph stays in float32.
    module: Any = Outputs(model, half=is_half and not is_openvino)
    if options.outputs == "detections":
        calibration = predictor.calibration
        calibrator = calibration.calibrator if calibration and options.calibrated else None
        inside = Inside(predictor.config.model.postprocess, options.threshold, calibrator)
        is_torch = path.suffix == ".pt2"
        suppress = suppress_by_torchvision if is_torch else onnx.suppress_in_onnx
        module = Found(module, predictor.layout, inside, suppress)
    module.eval()
    text = json.dumps(meaning)
    if path.suffix == ".pt2":
        pt2.write_program(module, text, path, shape=options.shape)
        return
    names = OUTPUTS[options.outputs]
    if not is_openvino:
        onnx.write_onnx(module, names, text, path, shape=options.shape)
        return
    source = path.with_name("source.onnx")
    onnx.write_onnx(module, names, text, source, shape=options.shape)
    onnx.write_openvino(source, text, path, half=is_half)


def write_in_8_bits(
    predictor: Predictor, meaning: dict[str, Any], options: ExportOptions, path: Path, say: Say
) -> tuple[float, float]:
    """An ONNX file in 8 bits whose AP on val is within the bound; the AP of both.

    More and more layers stay in float until it is. Raises ConfigError where it never is.
    """
    say("following the model, which takes the exporter a minute for a large one")
    source = path.with_name("float32.onnx")
    write(predictor, {**meaning, "precision": "float32"}, options, source)
    wanted = average_precision(predictor, predictor.config)
    tried = []
    for keep in onnx.INT8_STEPS:
        made = path.with_name("int8.onnx")
        count = onnx.write_int8(source, made, calibration_images(predictor, options), keep)
        own = f"{count} convolutions in float" if count else "all convolutions in 8 bits"
        restate(made, path, {**meaning, "int8_in_float": list(keep)})
        reached = average_precision(load_graph(path), predictor.config)
        say(f"{own}: AP {reached:.4f} on val, {wanted:.4f} in float32")
        if reached >= wanted - MAX_LOSS_OF_AP:
            return wanted, reached
        tried.append(f"{reached:.4f} with {own}")
        path.unlink()
    raise ConfigError(
        f"precision: int8 loses more than {MAX_LOSS_OF_AP} of an AP of {wanted:.4f}: "
        f"{', '.join(tried)}"
    )


def calibration_images(
    predictor: Predictor, options: ExportOptions
) -> Iterable[dict[str, NDArray[Any]]]:
    """Inputs of the graph, of images of the val split spread over all of it."""
    dataset = DATASETS.build(predictor.config.data).read("val")
    count = min(onnx.MOST_CALIBRATED, len(dataset))
    repeat, sizes = (options.shape or (1,))[0], preprocess_config(predictor.config)
    for index in np.linspace(0, len(dataset) - 1, count).astype(int):
        batch = preprocess([dataset.image(int(index))] * repeat, sizes)
        yield {"images": batch.images.astype(np.float32), "sizes": batch.sizes}


def average_precision(model: Predictor | GraphPredictor, config: Config) -> float:
    """AP on the val split of the config. Raises DataError where it is not there."""
    dataset = DATASETS.build(config.data).read("val")
    model.config = replace(config, evaluation=replace(config.evaluation, analysis=False))
    return float(score(model, dataset, ALONE)["AP"])


def some_images(predictor: Predictor, folder: str | None, most: int) -> Iterable[NDArray[np.uint8]]:
    """Pixels of images to compare on: of a folder, or of the val split of the model's data."""
    if folder is not None:
        require(Path(folder).is_dir(), f"images: {folder} is not a folder")
        names = list_images(Path(folder))[:most]
        if not names:
            raise DataError(f"images={folder}: holds no images")
        for name in names:
            yield read_pixels(Path(folder) / name, 100.0, key="images")
        return
    try:
        dataset = DATASETS.build(predictor.config.data).read("val")
    except DataError as error:
        raise DataError(f"{error}; images=FOLDER names others to compare on") from None
    for index in range(min(most, len(dataset))):
        yield dataset.image(index)


def agreement_with(
    predictor: Predictor, graph: GraphPredictor, pixels: list[NDArray[np.uint8]], precision: str
) -> Agreement:
    """Both called in the way in which the graph answers."""
    meaning = graph.meaning
    return compare(
        predictor,
        graph,
        pixels,
        BOUNDS[precision],
        threshold=meaning["threshold"],
        calibrated=meaning["calibrated"],
    )
