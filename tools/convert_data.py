"""Writes data in another form: `python tools/convert_data.py`. See --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.convert_data import main

if __name__ == "__main__":
    main()
