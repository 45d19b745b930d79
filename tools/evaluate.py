"""Scores a checkpoint, or COCO results of any detector: see --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.evaluate import main

if __name__ == "__main__":
    main()
