"""Evaluation by several processes: the same result to the bit, whatever the images' shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from detector.runs.checkpoint import load, save
from tests.guarantees.programs import EVALUATIONS
from tests.training.test_train_faults import exported
from tests.training.tiny import TINY, go, launch, tiny


def evaluation(folder: Path) -> str:
    """5 and 21 images of different shapes, in groups of two, by one, two and three processes."""
    data = different_shapes(folder / "data", num_val=21)
    run = go(tiny(folder / "run", data=data, steps=2))
    saved = load(run / "checkpoints" / "last.pt")
    for limit in (5, 21):
        saved["config"]["evaluation"] = {"limit": limit, "images_per_group": 2}
        save(folder / f"{limit}.pt", saved)
    for size in (1, 2, 3):
        outputs = [(str(folder / f"{n}.pt"), str(folder / f"{n}_{size}")) for n in (5, 21)]
        launch(
            size,
            EVALUATIONS,
            json.dumps(outputs),
            folder,
            wanted=folder / f"21_{size}" / "metrics.json",
        )
    said = []
    for limit in (5, 21):
        found = [scored(folder / f"{limit}_{size}") for size in (1, 2, 3)]
        rows = json.loads(found[0][0])
        is_same = found[0] == found[1] == found[2]
        said.append(
            f"{limit} images, {len(rows)} detections: {'bit-equal' if is_same else 'DIFFERENT'}"
        )
    return "; ".join(said)


def scored(folder: Path) -> tuple[str, dict[str, Any]]:
    """The detections and the metrics of an evaluation, without the time it took."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return (folder / "detections.json").read_text(), {**metrics, "seconds": 0}


def different_shapes(folder: Path, num_val: int) -> dict[str, Any]:
    """Generated images as files, those of val wider or higher by their number; the `data` part."""
    options = exported({**TINY["data"], "num_val": num_val}, folder, {i: i for i in range(1, 5)})
    path = folder / options["val_annotations"]
    content = json.loads(path.read_text())
    for i, row in enumerate(content["images"]):
        file = folder / options["val_images"] / row["file_name"]
        image = Image.open(file).convert("RGB")
        wider = Image.new("RGB", (image.width + 8 * (i % 5), image.height + 8 * (i % 3)))
        wider.paste(image)
        wider.save(file)
        row["width"], row["height"] = wider.size
    path.write_text(json.dumps(content))
    return options
