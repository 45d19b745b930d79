"""Valid files with something changed at random: read, or refused in words, and nothing lost.

300 of each kind here; `DETECTOR_MUTATIONS=10000 python -m pytest tests/data/test_mutations.py` for
as many as docs/guarantees.md states.
"""

from __future__ import annotations

import copy
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from detector.config.registry import DATASETS
from detector.config.schema import Plug
from detector.errors import DataError
from detector.evaluation.files import read_detections, read_with_notes
from tests.data.files import content, write_coco_set, write_json
from tests.data.readers.test_auto import write_voc, write_yolo

NUMBER = int(os.environ.get("DETECTOR_MUTATIONS", "300"))

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 7, 90, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan")),
    *(float("inf"), "", "x", "7", "1.0", "nan", "\ud800", "\x00", "../a.png", "/etc/passwd"),
    *("a.png", [], [1], [1, 2, 3, 4], [[1, 2, 3, 4, 5, 6]], {}, {"id": 3}, [None] * 4),
]
"""What takes the place of a value."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree of lists and dicts."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(inner, (*path, key))
    return found


def mutated(value: Any, draw: random.Random) -> Any:
    """The tree with one to three changes: a value replaced, removed, doubled, or a key renamed."""
    value = copy.deepcopy(value)
    for _ in range(draw.randrange(1, 4)):
        path = draw.choice(places(value))
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        way, key = draw.randrange(4), path[-1]
        if way == 0 and isinstance(holder, list):
            holder.insert(draw.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        elif way == 1:
            del holder[key]
        elif way == 2 and isinstance(holder, dict):
            holder[draw.choice(["id", "bbox", "name", f"{key}s"])] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(draw.choice(VALUES))
        if not places(value):
            break
    return value


def bytes_mutated(data: bytes, draw: random.Random) -> bytes:
    """One to four bytes, or a stretch, changed, doubled or taken out."""
    data = bytearray(data)
    for _ in range(draw.randrange(1, 5)):
        if not data:
            break
        first = draw.randrange(len(data))
        last = min(len(data), first + draw.choice([1, 1, 1, 4, 40]))
        way = draw.randrange(3)
        if way == 0:
            data[first] = draw.randrange(256)
        elif way == 1:
            del data[first:last]
        else:
            data[first:first] = data[first:last]
    return bytes(data)


def require_words(error: DataError, name: str = "") -> None:
    """A message that names the file, and is no report of a bug."""
    message = str(error)
    assert message.strip()
    assert name in message
    assert "Traceback" not in message


def read_or_refuse(plug: Plug) -> None:
    """Reads both as it stands and with all faults left out: a set in balance, or one error whose
    message names something and holds no traceback."""
    for more in ({}, {"on_invalid": "drop", "max_dropped": 1.0}):
        try:
            dataset = DATASETS.build(Plug(plug.name, plug.options | more)).read("train")
        except DataError as error:
            require_words(error)
            continue
        a = dataset.annotations
        for unit, used in (("image", len(a)), ("object", len(a.labels))):
            assert a.account.given[unit] == used + a.account.number_left_out(unit), a.summary()  # type: ignore[index,arg-type]


@pytest.mark.timeout(3600)
def test_coco_is_read_or_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = write_coco_set(tmp_path)
    whole = content()
    for seed in range(NUMBER):
        draw = random.Random(seed)
        if seed % 3:
            write_json(tmp_path, mutated(whole, draw))
        else:
            data = bytes_mutated(json.dumps(whole).encode(), draw)
            (tmp_path / "train.json").write_bytes(data)
        read_or_refuse(Plug("coco", options))


@pytest.mark.timeout(3600)
def test_yolo_is_read_or_refused(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    options = {"root": str(tmp_path), "file": "my.yaml"}
    files = [tmp_path / "my.yaml", *sorted((tmp_path / "labels/train").iterdir())]
    whole = {file: file.read_bytes() for file in files}
    for seed in range(NUMBER):
        draw = random.Random(seed)
        for file, data in whole.items():
            file.write_bytes(data)
        file = draw.choice(files)
        file.write_bytes(bytes_mutated(whole[file], draw))
        read_or_refuse(Plug("yolo", options))


@pytest.mark.timeout(3600)
def test_voc_is_read_or_refused(tmp_path: Path) -> None:
    write_voc(tmp_path)
    files = [tmp_path / "Annotations/a.xml", tmp_path / "ImageSets/Main/train.txt"]
    whole = {file: file.read_bytes() for file in files}
    for seed in range(NUMBER):
        draw = random.Random(seed)
        for file, data in whole.items():
            file.write_bytes(data)
        file = files[0] if seed % 4 else files[1]
        file.write_bytes(bytes_mutated(whole[file], draw))
        read_or_refuse(Plug("voc", {"root": str(tmp_path)}))


@pytest.mark.timeout(3600)
def test_results_are_read_or_refused(tmp_path: Path) -> None:
    truth_file = write_json(tmp_path, content(), "truth.json")
    truth, done = read_with_notes(truth_file)
    rows = [
        {"image_id": i, "category_id": c, "bbox": [1, 2, 5, 6], "score": 0.5}
        for i, c in ((7, 90), (3, 4), (7, 4))
    ]
    for seed in range(NUMBER):
        draw = random.Random(seed)
        file = write_json(tmp_path, mutated(rows, draw), "found.json")
        if seed % 3 == 0:
            file.write_bytes(bytes_mutated(json.dumps(rows).encode(), draw))
        try:
            found = read_detections(file, truth, done)
        except DataError as error:
            require_words(error, "found.json")
            continue
        assert len(found) == len(json.loads(file.read_bytes()))
        try:
            broken = write_json(tmp_path, mutated(content(), draw), "broken.json")
            read_with_notes(broken)
        except DataError as error:
            require_words(error, "broken.json")
