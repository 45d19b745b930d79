"""What a training would meet, found without training: anchors, priors and first steps."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.config import Config
from detector.data.readers.base import Dataset
from detector.engine.checkpoint import write_atomically
from detector.engine.run_folder import RunFolder
from detector.engine.setup import split_batch
from detector.errors import DataError
from detector.laboratory import audit_advice as advise
from detector.laboratory.audit_advice import Advice
from detector.laboratory.audit_counts import Counts, count
from detector.laboratory.audit_losses import FirstStep, LossRow, rows
from detector.laboratory.audit_page import page, require_report
from detector.laboratory.audit_summary import summary
from detector.laboratory.audit_text import text
from detector.registry import DATASETS
from detector.study_config import AuditConfig


@dataclass(frozen=True)
class Audit:
    """All that was found.

    counts: of the config as it is. advised: of the same with the advice taken; the same object
    where there is nothing to change. losses: at the config as it is.
    """

    config: Config
    dataset: Dataset
    counts: Counts
    advised: Counts
    advised_config: Config
    losses: list[LossRow]
    advice: list[Advice]
    seconds: float


def audit(config: AuditConfig, plain: dict[str, Any]) -> Path:
    """Prints the tables and writes audit.json and audit.html; the folder of both.

    plain: the values that `config.train` was made of. Raises ConfigError and DataError.
    """
    folder = RunFolder(Path(config.train.output_dir or "runs/audit"))
    folder.require_writable()
    if config.page:
        require_report()
    split_batch(config.train, 1)
    found = examine(config, plain, DATASETS.build(config.train.data).read("train"))
    numbers = summary(found)
    print("\n".join(text(numbers)))
    folder.path.mkdir(parents=True, exist_ok=True)
    written = {"audit.json": json.dumps(numbers, indent=1) + "\n"}
    if config.page:
        written["audit.html"] = page(found, numbers)
    for name, content in written.items():
        write_atomically(folder.path / name, content.encode())
        print(f"written: {folder.path / name}")
    return folder.path


def examine(config: AuditConfig, plain: dict[str, Any], dataset: Dataset) -> Audit:
    """Counts, foretells, and advises: first the size, then anchors for it, then what they need."""
    start = time.perf_counter()
    train, limit = config.train, config.limit
    counts = count(train, dataset, limit)
    if len(counts.labels) == 0:
        raise DataError(f"{dataset.name}: no objects but crowds, so there is nothing to audit")
    first_step = FirstStep(train, dataset, config.loss_images)
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
    if changes:
        first_step = FirstStep(sized, dataset, config.loss_images)
    lead = "with that taken, " if changes else ""
    on_prior, prior = advise.on_prior(sized, first_step, present, lead)
    on_balance = advise.on_balance(sized, first_step, prior)
    advice += [on_prior, *([on_balance] if on_balance else [])]
    changes |= {key: value for item in advice for key, value in item.changes.items()}
    final = advise.config_with(plain, changes)
    seconds = time.perf_counter() - start
    return Audit(train, dataset, counts, present, final, losses, advice, seconds)
