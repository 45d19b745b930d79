"""Trains a detector and evaluates it: `python tools/train.py loss=focal`. See --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.train import main

if __name__ == "__main__":
    main()
