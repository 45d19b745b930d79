"""Writes weights as safetensors: `python tools/export.py checkpoint=FILE output=FILE`."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.export import main

if __name__ == "__main__":
    main()
