"""Says what a training would meet, without training: `python tools/audit.py`. See --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.audit import main

if __name__ == "__main__":
    main()
