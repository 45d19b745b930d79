"""From composed yaml to plain values and `Config`: the only file that knows OmegaConf.

Hydra composes the yaml files, `from_omegaconf` turns the result into `Config`; below that all is
plain Python.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from detector.config import schema
from detector.config.train import Config, from_plain
from detector.errors import ConfigError


def from_omegaconf(node: DictConfig) -> tuple[Config, dict[str, Any]]:
    """The checked config and the same as plain values. Raises ConfigError."""
    values = plain_values(node)
    return from_plain(values), values


def plain_values(node: DictConfig) -> dict[str, Any]:
    """A composed config as plain values, references followed.

    Raises ConfigError where a value has to be given (`???`), for `_target_`, and for resolvers: a
    config is data, and `${oc.env:...}` would write what is in the environment into checkpoints.
    """
    raw = OmegaConf.to_container(node, resolve=False)
    schema.refuse_targets(raw)
    schema.refuse_resolvers(raw)
    for key in sorted(OmegaConf.missing_keys(node)):
        raise ConfigError(f"{key}: has to be given")
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def to_yaml(values: dict[str, Any]) -> str:
    """The text of config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.create(values))


def read_yaml(path: Path) -> dict[str, Any] | None:
    """The keys of a config.yaml, references not followed; None for a file that is none."""
    try:
        values = OmegaConf.to_container(OmegaConf.create(path.read_text()), resolve=False)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return None
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else None
