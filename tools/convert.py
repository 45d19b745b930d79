"""Makes a checkpoint of another framework's RetinaNet: `python tools/convert.py`. See --help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hydra
from cli import CONFIGS, VERSION_BASE, main
from omegaconf import DictConfig

if TYPE_CHECKING:
    from detector.tool_config import ConvertConfig


def convert(node: DictConfig) -> None:
    """Reads the file, refuses what does not fit, writes the checkpoint."""
    from detector import schema
    from detector.config import plain_values
    from detector.startup import check_versions
    from detector.tool_config import ConvertConfig

    config = schema.build(ConvertConfig, plain_values(node))
    check_versions()  # the file may be anyone's: reading it is safe from torch 2.10 on

    from detector.engine.convert import convert as write  # torch takes seconds

    write(config.source, config.weights, config.output, preset(config))
    print(f"written: {config.output}")
    print(f"its AP: python tools/evaluate.py checkpoint={config.output} data_root=COCO")
    print(f"to go on: python tools/train.py model={config.source} weights={config.output}")


def preset(config: ConvertConfig) -> dict[str, Any]:
    """The config of `tools/train.py` that the checkpoint holds."""
    from detector.config import plain_values

    overrides = [f"model={config.source}", f"backbone={config.backbone}", "data=coco"]
    # Averaged weights are of a run; bfloat16, which `auto` may take, would not give their boxes.
    overrides += ["ema.enabled=false", "precision=float32", "data.root=''"]
    with hydra.initialize_config_dir(str(CONFIGS), version_base=VERSION_BASE):
        values = plain_values(hydra.compose("train", overrides))
    values["data"]["root"] = config.data_root
    return values


if __name__ == "__main__":
    main("convert", convert)
