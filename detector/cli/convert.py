"""Makes a checkpoint of another framework's RetinaNet: `detector convert`. See --help."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import DictConfig

from detector.cli import hydra_app
from detector.cli.options import checked, start
from detector.config.compose import plain_values


@dataclass(frozen=True)
class ConvertConfig:
    """One call of `tools/convert.py`. See `configs/convert.yaml` for what each key means."""

    source: Literal["torchvision_v1", "torchvision_v2", "detectron2", "mmdet", "mmdet_caffe"]
    weights: str
    output: str
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnext50"] = "resnet50"
    data_root: str = "data/coco"


def run(node: DictConfig) -> None:
    """Reads the file, refuses what does not fit, writes the checkpoint."""
    options = checked(ConvertConfig, node)
    start()

    from detector.convert.convert import convert  # torch takes seconds

    convert(options.source, options.weights, options.output, preset(options))
    print(f"written: {options.output}")
    print(f"its AP: {call_of('evaluate')} checkpoint={options.output} data_root=COCO")
    print(f"to go on: {call_of('train')} model={options.source} weights={options.output}")


def call_of(command: str) -> str:
    """How the user calls another command: as this one was called."""
    is_script = sys.argv[0].endswith(".py")
    return f"python tools/{command}.py" if is_script else f"detector {command}"


def preset(options: ConvertConfig) -> dict[str, Any]:
    """The config of a training that the checkpoint holds."""
    overrides = [f"model={options.source}", f"backbone={options.backbone}", "data=coco"]
    # Averaged weights are of a run; bfloat16, which `auto` may take, would not give their boxes.
    overrides += ["ema.enabled=false", "precision=float32", "data.root=''"]
    values = plain_values(hydra_app.composed("train", overrides))
    values["data"]["root"] = options.data_root
    return values


def main() -> None:
    hydra_app.main("convert", run)
