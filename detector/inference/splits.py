"""The data that a trained model is scored on: a split of its own, or others with its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from detector.config import Config
from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.data.readers.base import Dataset, Split
from detector.data.renamed import with_classes


def with_data(config: Config, data: Mapping[str, Any] | None) -> Config:
    """The config with other data. data: with a `name`, they take the place of those it has; without
    one, they are options of these."""
    if not data:
        return config
    options = {key: value for key, value in data.items() if key != "name"}
    if "name" not in data:
        return replace(config, data=replace(config.data, options=config.data.options | options))
    return replace(config, data=Plug(str(data["name"]), options))


def read_split(
    classes: Sequence[str],
    category_ids: Sequence[int],
    data: Plug,
    split: Split,
    path: str,
) -> Dataset:
    """A split in the classes of the model at `path`; the other splits need not be there.

    Raises DataError where it has objects of a class that the model does not know.
    """
    reader = DATASETS.build(data)
    reader.expect(classes)
    return with_classes(reader.read(split), classes, category_ids, path)
