"""Describes the generated set and writes it out: `detector generate output_dir=DIR`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked, start
from detector.config.model import ModelConfig
from detector.config.ranges import AtLeast, require_ranges
from detector.config.schema import Plug, require


@dataclass(frozen=True)
class GenerateConfig:
    """One call of `tools/generate.py`. See `configs/generate.yaml` for what each key means."""

    data: Plug
    augment: Plug
    matcher: Plug
    model: ModelConfig
    output_dir: str | None = None
    splits: tuple[Literal["train", "val"], ...] = ("train", "val")
    limit: Annotated[int | None, AtLeast(1)] = 200

    def __post_init__(self) -> None:
        require_ranges(self)


def run(node: DictConfig) -> None:
    """Prints the figures of each split; writes COCO JSON and PNG where a folder is given."""
    config = checked(GenerateConfig, node)
    folder = None if config.output_dir is None else Path(config.output_dir)
    is_free = folder is None or not (folder.is_file() or any(folder.glob("*")))
    require(is_free, f"output_dir: {folder} is not a new or empty folder")
    start()

    from detector.config.registry import AUGMENTATIONS, DATASETS, MATCHERS
    from detector.data.export import figures, table, write_coco  # torch takes seconds
    from detector.models.anchors import AnchorGenerator
    from detector.structures import Batch, Matches, Targets

    reader, augment = DATASETS.build(config.data), AUGMENTATIONS.build(config.augment)
    matcher, anchors = MATCHERS.build(config.matcher), AnchorGenerator(config.model.anchors)

    def match(batch: Batch, targets: Targets) -> Matches:
        height, width = batch.images.shape[-2:]
        return matcher(anchors.for_image(height, width), targets, None)

    for split in config.splits:
        dataset = reader.read(split)
        print(f"{dataset.name}: {len(dataset)} images, {', '.join(dataset.annotations.classes)}")
        print(table(figures(dataset, augment, match, limit=config.limit)))
        if folder is not None:
            print(f"written: {write_coco(dataset, folder, split)}")
    if folder is not None:
        print("to read it: data=coco", quote(f"data.root={folder}"), *reading(config.splits))


def reading(splits: tuple[str, ...]) -> list[str]:
    """The overrides with which `data=coco` finds the files of `write_coco`."""
    return [
        override
        for split in splits
        for override in (
            f"data.{split}_annotations=annotations/instances_{split}.json",
            f"data.{split}_images={split}",
        )
    ]


def main() -> None:
    hydra_app.main("generate", run)
