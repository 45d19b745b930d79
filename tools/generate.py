"""Describes the generated set and writes it out: `python tools/generate.py output_dir=DIR`."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.generate import main

if __name__ == "__main__":
    main()
