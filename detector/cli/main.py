"""`detector COMMAND KEY=VALUE ...`: the commands of the project under one name."""

from __future__ import annotations

import importlib
import sys

import detector
from detector.cli.endings import interrupted
from detector.errors import did_you_mean

COMMANDS = {
    "train": "train a detector and evaluate it: detector train loss=focal",
    "evaluate": "score a checkpoint, or COCO results of any detector",
    "predict": "find objects in an image or a folder: JSON and drawn copies",
    "compare": "train several losses under the same conditions, and report",
    "check_data": "say what is wrong with data: detector check FOLDER",
    "convert_data": "write data in another form: COCO, YOLO or VOC",
    "audit": "say what a training would meet, before any",
    "calibrate": "fit a calibrator and thresholds to a checkpoint",
    "show_batch": "draw what the model sees after augmentation",
    "generate": "describe the built-in data set, or write it out",
    "plot_losses": "draw losses and their gradients",
    "convert": "make a checkpoint of another framework's RetinaNet",
    "export": "write a model for other programs: ONNX, OpenVINO, pt2, safetensors",
    "serve": "find objects in images that are sent over HTTP",
    "launch": "train many times, and print one table",
    "table": "print one table of finished runs",
    "replay": "repeat a step that was not finite, and say what was at fault",
    "check_plugin": "say whether parts of your own hold what each part has to",
    "configs": "list, show and copy out the yaml files that commands compose",
}
"""What each does. A command is the module of its name; it is imported only when it is called."""


ALIASES = {"check": "check_data"}
"""Shorter words for commands."""


def main() -> None:
    """Calls the command that the first word names, with the other words.

    Exits with 2 where there is no such command; the other exit codes are those of the commands.
    """
    first, *words = sys.argv[1:] or ["--help"]
    if first in ("--help", "-h", "help"):
        explain(words)
        return
    if first == "--version":
        print(f"detector {detector.__version__}")
        return
    name = ALIASES.get(first, first.replace("-", "_"))
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        print(f"error: {first}: no command{hint}; allowed: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"detector {name}", *words]
    try:
        importlib.import_module(f"detector.cli.{name}").main()
    except KeyboardInterrupt:  # while modules are imported
        sys.exit(interrupted())


def explain(words: list[str]) -> None:
    """`detector help`, `detector help COMMAND` or `detector help KEY`."""
    if not words:
        print(usage())
        return
    name = words[0].replace("-", "_")
    if name in COMMANDS:
        sys.argv = [f"detector {name}", "--help"]
        importlib.import_module(f"detector.cli.{name}").main()
        return
    from detector.cli import described, hydra_app  # which load Hydra, for its yaml files

    hydra_app.answered(lambda: print(described.about(words[0].partition("=")[0])), "help")


def usage() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "detector COMMAND [KEY=VALUE ...]",
            "",
            *lines,
            "",
            "detector COMMAND --help says what keys a command has, detector help KEY what it means",
        ]
    )
