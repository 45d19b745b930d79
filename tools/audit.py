"""Says what a training would meet, without training: `python tools/audit.py`. See --help."""

from __future__ import annotations

from cli import main
from omegaconf import DictConfig


def audit(node: DictConfig) -> None:
    """Counts anchors and objects, foretells the first step of every loss, and advises."""
    from detector import config, schema
    from detector.registry import import_plugins
    from detector.startup import check_versions
    from detector.study_config import AuditConfig

    train = config.plain_values(node)
    own = {key: train.pop(key) for key in ("limit", "loss_images", "page")}
    checked = schema.build(AuditConfig, {**own, "train": train})
    check_versions()
    import_plugins(checked.train.plugins)
    config.check_parts(checked.train)

    from detector.laboratory import audit as laboratory  # torch takes seconds

    laboratory.audit(checked, train)


if __name__ == "__main__":
    main("audit", audit)
