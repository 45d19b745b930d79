"""Answers over HTTP: `python tools/serve.py checkpoint=FILE`."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.serve import main

if __name__ == "__main__":
    main()
