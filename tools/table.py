"""Prints one table of finished runs: `python tools/table.py folder=runs/losses`. See --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.table import main

if __name__ == "__main__":
    main()
