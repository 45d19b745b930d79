"""Draws what the model sees after augmentation: `python tools/show_batch.py`. See --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.show_batch import main

if __name__ == "__main__":
    main()
