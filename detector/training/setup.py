"""From a config to the parts of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from detector.config import Config, EvaluationConfig
from detector.config.registry import AUGMENTATIONS, DATASETS, OPTIMIZERS, SAMPLERS, SCHEDULES
from detector.config.schema import Plug, require
from detector.criterion import build_criterion, check_criterion
from detector.data.headers import without_damaged
from detector.data.loader import evaluation_batches
from detector.data.readers.base import SPLITS, Dataset
from detector.data.renamed import with_classes
from detector.data.samplers import Sampler
from detector.data.stamps import stamp_of
from detector.data.transforms import Augmentation
from detector.errors import ConfigError, DataError
from detector.inference.predictor import Predictor
from detector.layouts import Layout
from detector.matchers.base import Matcher
from detector.models.anchors import AnchorGenerator
from detector.models.detector import Detector, build_detector
from detector.optim.ema import EMA
from detector.optim.schedules import Schedule
from detector.runtime.compiling import compiled, require_compiler
from detector.runtime.distributed import World
from detector.runtime.memory import out_of_memory
from detector.runtime.precision import Precision, choose, prepare
from detector.training.state import State
from detector.training.weights import start_from

NO_ROOM_FOR_MODEL = (
    "out of memory while the model is made; a smaller backbone, model.fpn.channels or "
    "model.head.channels"
)

PRIOR_IMAGES = 500
"""Images from which `prior=from_data` is estimated."""


@dataclass(frozen=True)
class Setup:
    """The fixed parts of a run."""

    config: Config
    plain: dict[str, Any]
    world: World
    precision: Precision
    train_set: Dataset
    val_set: Dataset
    augment: Augmentation
    sampler: Sampler
    learning_rate: float
    schedule: Schedule
    num_steps: int
    micro_batch: int
    """Images that one device holds at a time; `accumulation` of them make its share of a step."""
    accumulation: int

    @cached_property
    def files(self) -> dict[str, dict[str, str]]:
        """What tells the image files of both splits from others, see `stamp_of`."""
        return {"train": stamp_of(self.train_set), "val": stamp_of(self.val_set)}


def predictor_of(setup: Setup, state: State) -> Predictor:
    """The model of the run as it is scored at this moment; its weights go on changing."""
    annotations = setup.val_set.annotations
    return Predictor(
        state.evaluated_model,
        state.criterion.layout,
        setup.config,
        classes=annotations.classes,
        category_ids=annotations.category_ids,
        device=setup.world.device,
        precision=setup.precision,
        augment=setup.augment,
    )


def build(
    config: Config,
    plain: dict[str, Any],
    world: World,
    sets: tuple[Dataset, Dataset] | None = None,
) -> tuple[Setup, State]:
    """All parts of a run. Raises ConfigError or DataError before anything is trained.

    sets: the train and the val split; None: those of the config.
    """
    micro_batch, accumulation = split_batch(config, world.size)
    precision = choose(config.precision, world.device)
    # Before the data, which may take a while to read: a wrong option is answered at once.
    augment = AUGMENTATIONS.build(config.augment)
    sampler = SAMPLERS.build(config.sampler)
    check_criterion(config)
    optimizer = OPTIMIZERS.build(config.optim)
    schedule = SCHEDULES.build(config.schedule)
    anchors = AnchorGenerator(config.model.anchors)
    if sets is None:
        sets = read_sets(config.data)
    train_set, val_set = sets
    criterion = build_criterion(config, train_set.annotations, world)
    layout = criterion.layout
    prior = config.prior
    if prior == "from_data":
        prior = estimate_prior(train_set, augment, anchors, criterion.matcher, layout)
    postprocess = config.model.postprocess.resolve(prior, foreground_outputs(layout))
    config = replace(config, model=replace(config.model, postprocess=postprocess))
    config = replace(config, evaluation=with_rhythm(config, len(train_set)))
    torch.manual_seed(config.seed)
    with out_of_memory(lambda: NO_ROOM_FOR_MODEL):
        names = train_set.annotations.classes
        model = make_model(config, layout, prior, names, world, precision)
        ema = EMA(model, config.ema) if config.ema.enabled else None
    setup = Setup(
        config=config,
        plain=with_numbers(plain, prior, postprocess.score_threshold),
        world=world,
        precision=precision,
        train_set=train_set,
        val_set=val_set,
        augment=augment,
        sampler=sampler,
        learning_rate=optimizer.lr,
        schedule=schedule,
        num_steps=count_steps(config, len(train_set)),
        micro_batch=micro_batch,
        accumulation=accumulation,
    )
    state = State(
        model=model,
        ema=ema,
        criterion=criterion,
        optimizer=optimizer.build(model),
        scaler=torch.amp.GradScaler(world.device.type, enabled=precision.needs_scaling),  # type: ignore[attr-defined]
    )
    compile_parts(config, state, world)
    return setup, state


def compile_parts(config: Config, state: State, world: World) -> None:
    """Lets model and criterion compute by compiled functions in training, as the config says.

    Neither changes its type, its parameters or their names, and averages of weights, evaluations
    and exports go on as without. Raises ConfigError where there is nothing to compile with.
    """
    require_compiler(config.compile, world.device)
    is_step = config.compile == "step"
    compile = partial(compiled, with_cuda_graphs=is_step and world.device.type == "cuda")
    if is_step or config.compile == "model":
        state.model.compiled = compile(type(state.model).outputs)
    if is_step or config.compile == "loss":
        is_compiled = state.criterion.compile_by(compile)
        if not is_compiled and world.is_main:
            print(
                f"compile: loss={config.loss.name} is no sum over anchors and stays as it is",
                flush=True,
            )


def make_model(
    config: Config,
    layout: Layout,
    prior: float,
    classes: tuple[str, ...],
    world: World,
    precision: Precision,
) -> Detector:
    """The model on its device, with the weights that it starts from."""
    pretrained = config.weights is None
    model = build_detector(
        config.backbone,
        config.model,
        layout,
        prior,
        neck=config.neck,
        pretrained=pretrained,
        fold=config.fold,
    )
    if config.weights is not None:
        loaded = start_from(config.weights, model, config, layout, classes)
        if world.is_main:
            print(loaded, flush=True)
    model = synchronized(model, config, world)
    return prepare(model, precision, world.device, channels_last=config.channels_last)


def synchronized(model: Detector, config: Config, world: World) -> Detector:
    """The model with batch norm over the images of all GPUs, where `sync_batchnorm` asks for it.

    Raises ConfigError where there is no live batch norm, or no GPU: torch has it for those alone.
    """
    if not config.sync_batchnorm:
        return model
    live = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    require(bool(live), "sync_batchnorm: true given, but the model has no live batch norm")
    # torch puts its own in their place, which would lose what a kind of another library adds.
    other = next((type(m).__name__ for m in live if type(m) is not nn.BatchNorm2d), None)
    require(
        other is None,
        f"sync_batchnorm: true given, but the backbone has {other} in place of torch's batch norm; "
        "false is allowed there",
    )
    is_gpu = world.device.type == "cuda"
    require(is_gpu, f"sync_batchnorm: true given, but device is {world.device}; a GPU is needed")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if world.size > 1 else model  # type: ignore[return-value]


def split_batch(config: Config, world_size: int) -> tuple[int, int]:
    """(images a device holds at a time, times it does so in a step). Raises ConfigError."""
    if config.batch_size % world_size:
        raise ConfigError(
            f"batch_size: {config.batch_size} given, a multiple of {world_size} processes is needed"
        )
    share = config.batch_size // world_size
    micro_batch = config.micro_batch or share
    if share % micro_batch:
        raise ConfigError(
            f"micro_batch: {micro_batch} given, a divisor of {share} "
            f"(batch_size {config.batch_size} / {world_size} processes) is needed"
        )
    return micro_batch, share // micro_batch


def count_steps(config: Config, num_images: int) -> int:
    """Optimizer steps of the run: as given, or those that see each image `epochs` times."""
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    return max(1, math.ceil(config.epochs * num_images / config.batch_size))


MOST_EVALUATIONS = 100
"""Of a run, where `evaluation.every` is auto: a curve of so many points is smooth, and an epoch of
a small set is short."""


def with_rhythm(config: Config, num_images: int) -> EvaluationConfig:
    """The evaluation with a number of steps, or None, in the place of auto: once an epoch, which on
    the generated set would take longer than what is trained between."""
    if config.evaluation.every != "auto":
        return config.evaluation
    of = config.data.options.get("of")
    name = of.get("name") if isinstance(of, dict) else config.data.name
    epoch = math.ceil(num_images / config.batch_size)
    fewest = math.ceil(count_steps(config, num_images) / MOST_EVALUATIONS)
    every = None if name == "generated" else max(epoch, fewest)
    require(
        config.patience is None or every is not None,
        f"patience: {config.patience} with evaluation.every=auto given, which on the generated set "
        "is at the end alone; a number of steps is needed",
    )
    return replace(config.evaluation, every=every)


def read_sets(data: Plug, *, decode: bool = False) -> tuple[Dataset, Dataset]:
    """The train and the val split, the latter with the classes of the former.

    Every image of val is decoded once, so that no evaluation finds a damaged one. decode: those of
    train too. Raises DataError with the faults of both splits.
    """
    reader = DATASETS.build(data)
    sets: list[Dataset] = []
    faults: list[DataError] = []
    for split in SPLITS:
        try:
            dataset = reader.read(split)
            sets.append(without_damaged(dataset) if decode or split == "val" else dataset)
        except DataError as error:
            if str(error) not in map(str, faults):  # a file that both splits read
                faults.append(error)
    if faults:
        details = [line for error in faults for line in error.details]
        raise DataError("\n".join(map(str, faults)), details=details)
    train, val = sets
    known = train.annotations
    return train, with_classes(val, known.classes, known.category_ids, train.name)


def estimate_prior(
    dataset: Dataset,
    augment: Augmentation,
    anchors: AnchorGenerator,
    matcher: Matcher,
    layout: Layout,
) -> float:
    """The share of positives among the outputs that `layout.foreground` speaks of.

    Positives / (anchors that count x outputs): the bias at which the first predictions are right
    on average. Chen et al. 2019, "Is Sampling Heuristics Necessary", arXiv 1909.04868.
    Raises DataError where no anchor has an object.
    """
    outputs = foreground_outputs(layout)
    positives = total = 0
    batches = evaluation_batches(dataset, augment, images_per_group=8, limit=PRIOR_IMAGES)
    for batch, targets in batches:
        height, width = batch.images.shape[-2:]
        matches = matcher(anchors.for_image(height, width), targets, None)
        positives += int(matches.foreground.sum())
        total += int(matches.valid.sum()) * outputs
    if positives == 0:
        raise DataError("prior: from_data given, but no anchor has an object; give a number")
    return positives / total


def foreground_outputs(layout: Layout) -> int:
    """Outputs of an anchor that each begin at the prior: K or 1."""
    return layout.foreground(layout.initial_bias(0.5)).shape[-1]


def with_numbers(plain: dict[str, Any], prior: float, score_threshold: Any) -> dict[str, Any]:
    """The config to be saved, with numbers where it said that they come from the data."""
    result = {**plain, "prior": prior}
    if plain.get("model", {}).get("postprocess", {}).get("score_threshold") == "from_prior":
        postprocess = {**plain["model"]["postprocess"], "score_threshold": score_threshold}
        result["model"] = {**plain["model"], "postprocess": postprocess}
    return result
