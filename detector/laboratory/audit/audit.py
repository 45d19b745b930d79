"""What a training would meet, found without training: anchors, priors and first steps."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from detector.config import Config
from detector.config.registry import DATASETS
from detector.data.readers.base import Dataset
from detector.errors import DataError
from detector.laboratory.audit import advice as advise
from detector.laboratory.audit import classes
from detector.laboratory.audit.counts import count
from detector.laboratory.audit.losses import FirstStep, rows
from detector.laboratory.audit.outcome import Audit
from detector.laboratory.audit.page import page, require_report
from detector.laboratory.audit.summary import summary
from detector.laboratory.audit.text import text
from detector.runs.checkpoint import write_atomically
from detector.runs.run_folder import RunFolder
from detector.training.setup import split_batch


def audit(
    train: Config,
    plain: dict[str, Any],
    *,
    limit: int | None = None,
    loss_images: int = 16,
    with_page: bool = True,
) -> Path:
    """Prints the tables and writes audit.json and audit.html; the folder of both.

    plain: the values that `train` was made of. limit, loss_images: see `examine`. Raises
    ConfigError and DataError.
    """
    folder = RunFolder(Path(train.output_dir or "runs/audit"))
    folder.require_writable()
    if with_page:
        require_report()
    split_batch(train, 1)
    dataset = DATASETS.build(train.data).read("train")
    for line in dataset.annotations.summary():
        print(f"train: {line}")
    found = examine(train, plain, dataset, limit=limit, loss_images=loss_images)
    numbers = summary(found)
    print("\n".join(text(numbers)))
    folder.path.mkdir(parents=True, exist_ok=True)
    written = {"audit.json": json.dumps(numbers, indent=1) + "\n"}
    if with_page:
        written["audit.html"] = page(found, numbers)
    for name, content in written.items():
        write_atomically(folder.path / name, content.encode())
        print(f"written: {folder.path / name}")
    return folder.path


def examine(
    train: Config,
    plain: dict[str, Any],
    dataset: Dataset,
    *,
    limit: int | None = None,
    loss_images: int = 16,
) -> Audit:
    """Counts, computes first steps, and advises: first the size, then anchors for it, then weights
    of the classes, then what they all need.

    limit: of the images that are counted, None for all. loss_images: of the first step.
    """
    start = time.perf_counter()
    counts = count(train, dataset, limit)
    if len(counts.labels) == 0:
        raise DataError(f"{dataset.name}: no objects but crowds, so there is nothing to audit")
    first_step = FirstStep(train, dataset, loss_images)
    losses = rows(first_step, counts)
    advice = [advise.on_image_size(train, dataset, counts)]
    changes = dict(advice[0].changes)
    sized = advise.config_with(plain, changes)
    present = count(sized, dataset, limit) if changes else counts
    fitted, _ = advise.fitted(sized, present)
    refitted = advise.config_with(plain, changes | fitted)
    after = count(refitted, dataset, limit)
    advice.append(advise.on_anchors(fitted, present, after))
    if advice[-1].changes:
        sized, present = refitted, after
        changes |= fitted
    class_facts = classes.facts(counts, present, dataset.annotations)
    if (weights := advise.on_classes(sized, class_facts)) is not None:
        advice.append(weights)
        changes |= weights.changes
        sized = advise.config_with(plain, changes)
    if changes:
        first_step = FirstStep(sized, dataset, loss_images)
    lead = "with that taken, " if changes else ""
    on_prior, prior = advise.on_prior(sized, first_step, present, lead)
    on_balance = advise.on_balance(sized, first_step, prior)
    advice += [on_prior, *([on_balance] if on_balance else [])]
    changes |= {key: value for item in advice for key, value in item.changes.items()}
    final = advise.config_with(plain, changes)
    seconds = time.perf_counter() - start
    return Audit(train, dataset, counts, present, final, losses, advice, class_facts, seconds)
