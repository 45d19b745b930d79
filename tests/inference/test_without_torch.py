"""What an exported model needs works where of other libraries only numpy and Pillow are."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.data.files import write_image

MODULES = [
    "detector.data.images",
    "detector.data.resizing",
    "detector.drawing.drawing",
    "detector.drawing.marks",
    "detector.inference.detections",
    "detector.inference.preprocess",
    "detector.inference.resize",
]

LIST_LIBRARIES = """
import sys
before = set(sys.modules)
import {module}
new = [name for name in set(sys.modules) - before if getattr(sys.modules[name], "__file__", None)]
print({{name.partition(".")[0] for name in new}} - sys.stdlib_module_names - {{"detector"}})
"""

REFUSED = ("torch", "torchvision", "cv2", "albumentations", "matplotlib", "scipy", "yaml",
           "omegaconf", "hydra", "pycocotools", "tqdm")  # fmt: skip

FROM_FILE_TO_ROWS = """
import sys
for name in {refused}:
    sys.modules[name] = None  # an import of it fails
import numpy as np
from detector.inference.detections import Detections
from detector.inference.preprocess import PreprocessConfig, decode, normalize, preprocess
for interpolation in ("area", "linear", "torch", "pillow"):
    batch = preprocess([decode(sys.argv[1])], PreprocessConfig(50, 70, interpolation))
    assert normalize(batch.images, batch.sizes, (1, 2, 3), (4, 5, 6)).shape == (1, 3, 64, 96)
found = Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64),
                   ("cat",), (3,))
found.draw(sys.argv[1]).save(sys.argv[2])
print(found, found.to_dict(), found.to_coco(7), list(found.above(0.5)))
"""


def python(code: str, *argv: str) -> str:
    """What a new process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", MODULES)
def test_an_import_brings_no_library_but_numpy_and_pillow(module: str) -> None:
    libraries = ast.literal_eval(python(LIST_LIBRARIES.format(module=module)))
    assert libraries <= {"numpy", "PIL"}
    assert "numpy" in libraries


def test_from_an_image_file_to_a_picture_and_rows_without_the_libraries_of_training(
    tmp_path: Path,
) -> None:
    write_image(tmp_path / "a.png", 60, 80)
    code = FROM_FILE_TO_ROWS.format(refused=REFUSED)
    out = python(code, str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    assert out.startswith("1 detection: cat 1.00 {'boxes': [[1.0, 1.0, 1.0, 1.0]]")
    assert (tmp_path / "b.png").is_file()
