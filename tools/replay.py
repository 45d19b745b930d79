"""Repeats a step that was not finite: `python tools/replay.py folder=RUN`. See --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.replay import main

if __name__ == "__main__":
    main()
