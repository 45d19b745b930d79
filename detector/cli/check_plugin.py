"""Runs the contract of parts on those of your own: `detector check_plugin my_package.my_loss`."""

from __future__ import annotations

import sys

from detector.cli.hydra_app import answered
from detector.cli.options import start
from detector.errors import ConfigError

USAGE = """detector check_plugin MODULE ...    what each part that the modules register has to hold

A loss, box loss, matcher or backbone is called on made-up data; data, augmentations, optimizers and
schedules are built with their defaults. The exit code is 2 where something does not hold."""


def main() -> None:
    """Prints a line for each rule; exits with 2 where one does not hold."""
    answered(lambda: run(sys.argv[1:]), "check_plugin")


def run(words: list[str]) -> None:
    """Raises ConfigError where a rule does not hold, and for modules that register nothing."""
    if not words or words[0] in ("--help", "-h"):
        print(USAGE)
        return
    start()

    from detector.laboratory.contract import check, registered  # torch takes seconds

    findings = [f for kind, name in registered(words) for f in check(kind, name)]
    for found in findings:
        state = "ok" if found.fault is None else "NOT"
        fault = f": {found.fault}" if found.fault else ""
        print(f"{state:<4}{found.kind}={found.name}: {found.rule}{fault}")
    broken = [found for found in findings if found.fault is not None]
    if broken:
        first = broken[0]
        raise ConfigError(
            f"{len(broken)} of {len(findings)} rules do not hold; the first: "
            f"{first.kind}={first.name}: {first.fault}"
        )
    print(f"all {len(findings)} rules hold")
