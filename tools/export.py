"""A model for other programs: `python tools/export.py checkpoint=FILE output=model.onnx`."""

import checkout  # noqa: F401  what runs is this checkout, installed or not

from detector.cli.export import main

if __name__ == "__main__":
    main()
