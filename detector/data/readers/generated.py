"""The built-in set: small coloured shapes on clutter, with distractors. Needs no files.

A class is a pair of shape and colour. A distractor has the shape of one class and the colour of
another, so neither alone tells an object. Image i of a split is a pure function of (seed, split,
i); label noise and missing labels change what is said about an image, never the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.config.registry import DATASETS
from detector.config.schema import require
from detector.data.annotations import Annotations, Rows, pack
from detector.data.readers.base import SPLITS, Dataset, Reader, Split

COLOURS = {
    "red": (205, 50, 45),
    "green": (50, 165, 65),
    "blue": (55, 85, 205),
    "yellow": (210, 185, 45),
    "magenta": (185, 60, 175),
    "cyan": (55, 180, 190),
}
SHAPES = ("circle", "square", "triangle", "cross", "diamond", "ring")
MAX_CLASSES = len(SHAPES) * len(COLOURS) // 2
"""Half of the pairs: the others are left for distractors."""

TEMPLATE = 128
"""Side in pixels of the shapes before they are shrunk to an object's size."""

MAX_OVERLAP = 0.1
"""IoU that two boxes may have, objects and distractors alike."""

LAYOUT, PAINT, LABELS, MISSING = range(4)
"""Separate streams of random numbers: a knob of one leaves what the others draw alone."""


@dataclass(frozen=True)
class Shape:
    """A shape to draw. box: left, top, width, height in whole pixels; label: -1: a distractor."""

    shape: str
    colour: str
    box: tuple[int, int, int, int]
    label: int


@dataclass(frozen=True)
class Options:
    """See `GeneratedReader`."""

    seed: int
    image_size: int
    num_classes: int
    min_objects: int
    max_objects: int
    min_size: float
    max_size: float
    distractors: float


@DATASETS.register("generated")
class GeneratedReader(Reader):
    """num_train, num_val, num_test: images. image_size: their side in pixels. num_classes: 1 to 18.

    min_objects, max_objects: of an image, evenly. min_size, max_size: side in pixels, its logarithm
    evenly. distractors: mean number for each object. label_noise: share of the train objects that
    are given another class. missing_labels: share of the train objects that are not labelled.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        num_train: int = 2000,
        num_val: int = 200,
        num_test: int = 200,
        image_size: int = 256,
        num_classes: int = 4,
        min_objects: int = 1,
        max_objects: int = 2,
        min_size: float = 16.0,
        max_size: float = 36.0,
        distractors: float = 1.0,
        label_noise: float = 0.0,
        missing_labels: float = 0.0,
    ) -> None:
        _require_at_least(0, seed=seed, min_objects=min_objects, distractors=distractors)
        _require_at_least(1, num_train=num_train, num_val=num_val, num_test=num_test)
        _require_at_least(1, num_classes=num_classes)
        _require_at_least(8, min_size=min_size)
        _require_at_least(min_objects, max_objects=max_objects)
        _require_at_least(min_size, max_size=max_size)
        _require_at_least(max_size + 8, image_size=image_size)
        require(
            num_classes <= MAX_CLASSES,
            f"num_classes: {num_classes} given, at most {MAX_CLASSES} is allowed",
        )
        for key, share in (("label_noise", label_noise), ("missing_labels", missing_labels)):
            require(0 <= share <= 1, f"{key}: {share} given, 0 to 1 is allowed")
        self.num_images = {"train": num_train, "val": num_val, "test": num_test}
        self.label_noise, self.missing_labels = label_noise, missing_labels
        self.options = Options(
            seed, image_size, num_classes, min_objects, max_objects, min_size, max_size, distractors
        )

    def read(self, split: Split) -> Dataset:
        rows = Rows()
        pairs = class_pairs(self.options.num_classes)
        for index in range(self.num_images[split]):
            rows.image_ids.append(index + 1)
            rows.file_names.append(f"{index + 1:06d}.png")
            rows.sizes.append((self.options.image_size, self.options.image_size))
            for label, box in self._objects(split, index):
                rows.owners.append(index)
                rows.xywh.append(box)
                rows.labels.append(label + 1)
                rows.crowd.append(False)
                rows.areas.append(float(box[2] * box[3]))
                rows.ids.append(len(rows.ids) + 1)
        name = f"generated {split}"
        categories = {k + 1: f"{colour} {shape}" for k, (shape, colour) in enumerate(pairs)}
        annotations = pack(rows, source=name, categories=categories)
        return GeneratedDataset(name, annotations, self.options, split)

    def _objects(self, split: Split, index: int) -> list[tuple[int, tuple[int, int, int, int]]]:
        """(label, box) of an image's objects as they are annotated."""
        objects = [s for s in plan(self.options, split, index) if s.label >= 0]
        if split != "train" or self.label_noise == self.missing_labels == 0:
            return [(s.label, s.box) for s in objects]
        k = self.options.num_classes
        flips = stream(self.options.seed, split, index, LABELS).random((len(objects), 2))
        misses = stream(self.options.seed, split, index, MISSING).random(len(objects))
        labels = [
            (s.label + 1 + int(other * (k - 1))) % k if draw < self.label_noise else s.label
            for s, (draw, other) in zip(objects, flips, strict=True)
        ]
        return [
            (label, s.box)
            for label, s, draw in zip(labels, objects, misses, strict=True)
            if draw >= self.missing_labels
        ]


class GeneratedDataset(Dataset):
    """Images drawn when they are asked for."""

    def __init__(self, name: str, annotations: Annotations, options: Options, split: Split) -> None:
        super().__init__(name, annotations)
        self.options = options
        self.split: Split = split

    def image(self, index: int) -> NDArray[np.uint8]:
        rng = stream(self.options.seed, self.split, index, PAINT)
        canvas = background(self.options.image_size, rng)
        for shape in plan(self.options, self.split, index):
            draw(canvas, shape, rng)
        grain = rng.integers(0, 24, canvas.shape, np.uint8)
        return cv2.subtract(cv2.add(canvas, grain), 12)  # type: ignore[return-value]


def stream(seed: int, split: Split, index: int, purpose: int) -> np.random.Generator:
    """The random numbers of one image for one purpose."""
    key = np.random.SeedSequence([seed, (*SPLITS, "test").index(split), index, purpose])
    return np.random.Generator(np.random.PCG64(key))


def class_pairs(num_classes: int) -> list[tuple[str, str]]:
    """The (shape, colour) of each class: neighbours differ in both."""
    n = len(SHAPES)
    return [(SHAPES[k % n], list(COLOURS)[(k + k // n) % n]) for k in range(num_classes)]


@cache
def distractor_pairs(num_classes: int) -> list[tuple[str, str]]:
    """The pairs that are no class, but have the shape of one and the colour of another.

    A single class has no other: then its shape in other colours.
    """
    classes = class_pairs(num_classes)
    colours = [colour for _, colour in classes] if num_classes > 1 else list(COLOURS)
    pairs = {(shape, colour) for shape, _ in classes for colour in colours}
    return sorted(pairs - set(classes))


def plan(options: Options, split: Split, index: int) -> list[Shape]:
    """What is drawn in an image: distractors first, so that objects are never hidden by them.

    A shape for which no free place is found in 20 tries is left out, the first object excepted.
    """
    rng = stream(options.seed, split, index, LAYOUT)
    num_objects = int(rng.integers(options.min_objects, options.max_objects + 1))
    num_distractors = int(options.distractors * num_objects + rng.random())
    classes, others = class_pairs(options.num_classes), distractor_pairs(options.num_classes)
    objects: list[Shape] = []
    distractors: list[Shape] = []
    for i in range(num_objects + num_distractors):
        label = int(rng.integers(len(classes))) if i < num_objects else -1
        pair = classes[label] if label >= 0 else others[int(rng.integers(len(others)))]
        box = place(options, [s.box for s in objects + distractors], rng)
        if box is not None:
            (objects if label >= 0 else distractors).append(Shape(*pair, box, label))
    return distractors + objects


def place(
    options: Options, taken: list[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """A box of random size and place that overlaps no taken one by more than MAX_OVERLAP."""
    low, high = np.log(options.min_size), np.log(options.max_size)
    for size, aspect, x, y in rng.random((20, 4)):
        side = np.exp(low + size * (high - low))
        stretch = np.exp((aspect - 0.5) * 0.4)
        w, h = (
            int(np.clip(round(s), 8, options.image_size)) for s in (side * stretch, side / stretch)
        )
        box = (
            int(x * (options.image_size - w + 1)),
            int(y * (options.image_size - h + 1)),
            w,
            h,
        )
        if all(overlap(box, other) <= MAX_OVERLAP for other in taken):
            return box
    return None


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """IoU of two boxes given by corner and sides."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def background(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(size, size, 3) clutter: smooth noise on two scales, faint patches and lines."""
    canvas = cv2.resize(_noise(rng, 6, 70, 175), (size, size), interpolation=cv2.INTER_CUBIC)
    detail = cv2.resize(_noise(rng, 40, 0, 50), (size, size), interpolation=cv2.INTER_LINEAR)
    canvas = cv2.add(canvas, detail)
    faint = canvas.copy()
    for _ in range(int(rng.integers(6, 13))):
        colour = rng.integers(20, 236, 3).tolist()
        x, y, a, b, angle = (rng.random(5) * [size, size, size / 8, size / 8, 180]).tolist()
        axes = (3 + int(a), 3 + int(b))
        if rng.random() < 0.5:
            cv2.ellipse(faint, (int(x), int(y)), axes, angle, 0, 360, colour, -1)
        else:
            cv2.rectangle(faint, (int(x), int(y)), (int(x) + axes[0], int(y) + axes[1]), colour, -1)
    for _ in range(int(rng.integers(4, 9))):
        colour = rng.integers(20, 236, 3).tolist()
        x1, y1, x2, y2 = (rng.random(4) * size).astype(int).tolist()
        cv2.line(faint, (x1, y1), (x2, y2), colour, int(rng.integers(1, 4)), cv2.LINE_AA)
    return cv2.addWeighted(canvas, 0.6, faint, 0.4, 0)  # type: ignore[return-value]


def draw(canvas: NDArray[np.uint8], shape: Shape, rng: np.random.Generator) -> None:
    """Paints a shape into the canvas, its colour a little off, its edges smooth."""
    x, y, w, h = shape.box
    colour = np.clip(np.array(COLOURS[shape.colour]) + rng.integers(-25, 26, 3), 0, 255)
    alpha = mask(shape.shape, w, h)[..., None]
    patch = canvas[y : y + h, x : x + w]
    patch[:] = np.rint(patch + alpha * (colour - patch)).astype(np.uint8)


def mask(shape: str, width: int, height: int) -> NDArray[np.float32]:
    """(height, width) share of each pixel that the shape covers; it reaches all four sides."""
    return cv2.resize(template(shape), (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


@cache
def template(shape: str) -> NDArray[np.float32]:
    """(TEMPLATE, TEMPLATE) 0 or 1: the shape in a square from -1 to 1, y downwards."""
    axis = (np.arange(TEMPLATE, dtype=np.float32) + 0.5) * (2 / TEMPLATE) - 1
    x, y = axis[None, :], axis[:, None]
    radius = np.hypot(x, y)
    covered = {
        "circle": radius <= 1,
        "square": (np.abs(x) <= 1) & (np.abs(y) <= 1),
        "triangle": 2 * np.abs(x) <= y + 1,
        "cross": np.minimum(np.abs(x), np.abs(y)) <= 1 / 3,
        "diamond": np.abs(x) + np.abs(y) <= 1,
        "ring": (radius <= 1) & (radius >= 0.55),
    }
    return np.broadcast_to(covered[shape], (TEMPLATE, TEMPLATE)).astype(np.float32)


def _noise(rng: np.random.Generator, cells: int, low: int, high: int) -> NDArray[np.uint8]:
    return rng.integers(low, high, (cells, cells, 3), np.uint8)


def _require_at_least(low: float, **values: float) -> None:
    for key, value in values.items():
        require(value >= low, f"{key}: {value} given, at least {low} is needed")
