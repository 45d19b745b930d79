"""Fits a calibrator and thresholds: `python tools/calibrate.py checkpoint=FILE output=FILE`."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.calibrate import main

if __name__ == "__main__":
    main()
