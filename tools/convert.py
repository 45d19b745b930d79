"""Makes a checkpoint of another framework's RetinaNet: `python tools/convert.py`. See --help."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.convert import main

if __name__ == "__main__":
    main()
