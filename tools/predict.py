"""Draws what a checkpoint finds: `python tools/predict.py checkpoint=FILE source=FOLDER`."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.predict import main

if __name__ == "__main__":
    main()
