"""Keys that came later have, in a config of before, the value that the code then had built in."""

from __future__ import annotations

from typing import Any

import hydra

from detector.config import from_plain
from detector.config.compose import plain_values
from detector.config.defaults import filled
from detector.runs.resume import differences
from tests.test_configs import CONFIGS


def composed(*overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return plain_values(hydra.compose("train", [*overrides]))


def without(values: dict[str, Any], *paths: str) -> dict[str, Any]:
    """A deep copy that lacks these dotted keys."""
    result = {k: without(v) if isinstance(v, dict) else v for k, v in values.items()}
    for path in paths:
        *groups, key = path.split(".")
        node = result
        for group in groups:
            node = node[group]
        del node[key]
    return result


def test_a_config_that_lacks_nothing_is_not_changed() -> None:
    values = composed()
    assert from_plain(filled(values)) == from_plain(values)


def test_keys_of_the_run_its_groups_and_its_parts_are_filled_in() -> None:
    values = composed("model=full")
    old = without(values, "sampler", "matcher.every_object", "model.head.norm", "ema.decay")
    assert filled(old)["sampler"] == {"name": "shuffle"}
    assert filled(old)["matcher"]["every_object"] is False
    assert filled(old)["model"]["head"]["norm"] == "none"
    assert filled(old)["ema"]["decay"] == 0.998
    assert differences(old, values) == []


def test_what_differs_from_the_default_is_told() -> None:
    old = without(composed(), "sampler", "matcher.every_object")
    given = composed("sampler=class_balanced", "matcher.every_object=true")
    assert differences(old, given) == [
        "matcher.every_object: False -> True",
        "sampler.name: 'shuffle' -> 'class_balanced'",
        "sampler.power: None -> 1.0",
    ]


def test_a_part_that_is_not_known_here_and_a_key_of_elsewhere_stay() -> None:
    values = {**composed(), "loss": {"name": "theirs", "strength": 2.0}, "novelty": 7}
    assert filled(values)["loss"] == values["loss"]
    assert filled(values)["novelty"] == 7
