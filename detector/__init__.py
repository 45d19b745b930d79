"""A dense one-stage detector in which the loss is the only thing that changes."""

import os

# albumentations would ask the package index for a newer version whenever it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
