"""Draws what the model sees after augmentation: `python tools/show_batch.py`. See --help."""

from __future__ import annotations

from cli import main
from omegaconf import DictConfig


def show_batch(node: DictConfig) -> None:
    """Writes the first batches of a training as PNG."""
    from detector import config, schema
    from detector.registry import import_plugins
    from detector.startup import check_versions
    from detector.tool_config import ShowBatchConfig

    train = config.plain_values(node)
    own = {key: train.pop(key) for key in ("batches", "matches")}
    checked = schema.build(ShowBatchConfig, {**own, "train": train})
    check_versions()
    import_plugins(checked.train.plugins)
    config.check_parts(checked.train)

    from detector.engine.show_batch import show_batches  # torch takes seconds

    show_batches(checked)


if __name__ == "__main__":
    main("show_batch", show_batch)
