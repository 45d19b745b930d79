"""Says what is wrong with data, and what they hold: `python tools/check_data.py`. See --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.check_data import main

if __name__ == "__main__":
    main()
