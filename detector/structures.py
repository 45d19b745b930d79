"""The data that flows between the parts, and the letters that name their shapes.

N  images of a micro-batch
A  anchors of an image over all levels
M  objects of an image, padded to the largest count of the batch
K  classes
D  outputs per anchor of the class head (`Layout.num_outputs`)
B  outputs per anchor of the box head (`BoxLayout.num_outputs`)
S  detections of one image

Boxes are (x1, y1, x2, y2) in pixels, x2 and y2 exclusive. Sizes and scales are (height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Protocol, TypeVar, cast, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

BACKGROUND = -1
"""Label of an anchor without an object, and of the padding in `Targets`."""

IGNORE = -2
"""Label of an anchor that must not change any result."""

LEAST_CAPACITY = 8
"""Places for objects that `Targets.with_capacity` makes at least."""

T = TypeVar("T")


class cached(Generic[T]):
    """`functools.cached_property` that torch.compile can look through.

    Until Python 3.12 that of the standard library takes a lock, which cannot be compiled. While
    compiling nothing is kept: the compiler finds what is computed twice.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make, self.name, self.__doc__ = make, make.__name__, make.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> cached[T]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> cached[T] | T:
        if instance is None:
            return self
        value = self.make(instance)
        if not torch.compiler.is_compiling():
            instance.__dict__[self.name] = value  # found before this descriptor from then on
        return value


def to_device(data: T, device: torch.device) -> T:
    """A copy of a dataclass of tensors on `device`; other fields are kept as they are.

    `Targets` get a capacity where the device is none of the processor's: there a shape that was not
    seen before costs more than places that stay empty.
    """
    moved = _with_tensors(data, lambda value: value.to(device, non_blocking=True))
    # There, since what is padded here would no longer lie in memory that a GPU reads by itself.
    if isinstance(moved, Targets) and device.type != "cpu":
        return cast(T, moved.with_capacity())
    return moved


def _with_tensors(data: T, change: Callable[[Tensor], Tensor]) -> T:
    changed = {
        field.name: change(value)
        for field in fields(data)  # type: ignore[arg-type]
        if isinstance(value := getattr(data, field.name), Tensor)
    }
    return replace(data, **changed)  # type: ignore[type-var]


def promote(x: Tensor) -> Tensor:
    """`x` in float32 where it is of half precision; float32 and float64 are kept."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class BoxOutputs(Protocol):
    """What the box outputs of an anchor mean; see `BoxLayout`."""

    @property
    def num_outputs(self) -> int: ...

    def initial_bias(self) -> Tensor: ...

    def numbers(self, outputs: Tensor) -> Tensor: ...


class Coder(Protocol):
    """Turns boxes into four numbers relative to anchors, and back.

    box_layout: how the box outputs of an anchor say these numbers.
    """

    @property
    def box_layout(self) -> BoxOutputs: ...

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor: ...

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Batch:
    """Images as the model takes them, padded right and bottom to a multiple of 32.

    images: (N, 3, H, W) RGB from 0 to 255, uint8 or float32, not normalised (the model does that,
        then zeroes the padding).
    sizes: (N, 2) int64, height and width of the part that is not padding.
    scales: (N, 2) float32, size in `images` divided by size in the file, per axis.
    image_ids: the N ids of the data set.
    damaged: a line for each file that could not be decoded, in whose place another image stands.
    """

    images: Tensor
    sizes: Tensor
    scales: Tensor
    image_ids: tuple[int, ...]
    damaged: tuple[str, ...] = ()

    def pin_memory(self) -> Batch:
        """A copy in memory that a GPU can read while it computes; the loader asks by this name."""
        return _with_tensors(self, Tensor.pin_memory)


@dataclass(frozen=True)
class Targets:
    """The objects of the images of a `Batch`, in the pixels of that batch.

    boxes: (N, M, 4) float32. labels: (N, M) int64 in [0, K), BACKGROUND where padded.
    crowd: (N, M) bool; a crowd is never a positive, anchors on it are neutral.
    image_sizes: (N, 2) int64, as `Batch.sizes`. keys: (N,) int64 seeds of the images' random draws.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    image_sizes: Tensor
    image_ids: tuple[int, ...]
    keys: Tensor

    @classmethod
    def pack(
        cls,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        image_sizes: Sequence[tuple[int, int]],
        crowd: Sequence[Tensor] | None = None,
        image_ids: Sequence[int] | None = None,
        keys: Sequence[int] | None = None,
    ) -> Targets:
        """The objects of N images, each with its own number of them.

        boxes: N of (M, 4) xyxy in pixels of the images. labels: N of (M,) classes in [0, K).
        image_sizes: N of (height, width). crowd: N of (M,) bool; None: no object is one. image_ids,
        keys: None counts the images from 0.
        """
        if crowd is None:
            crowd = [torch.zeros(len(each), dtype=torch.bool) for each in labels]
        count = range(len(labels))
        return cls(
            boxes=pad_sequence([*boxes], batch_first=True),
            labels=pad_sequence([*labels], batch_first=True, padding_value=BACKGROUND),
            crowd=pad_sequence([*crowd], batch_first=True),
            image_sizes=torch.tensor(image_sizes),
            image_ids=tuple(count if image_ids is None else image_ids),
            keys=torch.tensor([*(count if keys is None else keys)]),
        )

    def with_capacity(self) -> Targets:
        """The same with places for 8, 16, 32, ... objects: a run then sees few shapes.

        Memory that a GPU hands out by size is used again, and what is compiled for a shape, or
        recorded, serves most steps.
        """
        count = self.labels.shape[1]
        more = max(LEAST_CAPACITY, 1 << max(0, count - 1).bit_length()) - count
        return replace(
            self,
            boxes=F.pad(self.boxes, (0, 0, 0, more)),
            labels=F.pad(self.labels, (0, more), value=BACKGROUND),
            crowd=F.pad(self.crowd, (0, more)),
        )

    def pin_memory(self) -> Targets:
        """As `Batch.pin_memory`."""
        return _with_tensors(self, Tensor.pin_memory)


MicroBatches = Sequence[tuple[Batch, Targets]]
"""What one device is given of an optimizer step, part by part."""


@dataclass(frozen=True)
class Anchors:
    """The anchors of one image: every image of a batch has the same.

    boxes: (A, 4) float32. strides: (A,) float32, pixels between the cells of the anchor's level.
    level_sizes: anchors on each level, finest level first; they sum to A.
    """

    boxes: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Predictions:
    """What the model says, in training and in evaluation alike.

    logits: (N, A, D), read by the `Layout`. deltas: (N, A, B), read by the box layout of `coder`.
    scores: (N, A, K) probabilities without a gradient, for a matcher that looks at them: the
        criterion, which knows the layout, fills them in. Else None.
    """

    logits: Tensor
    deltas: Tensor
    anchors: Anchors
    coder: Coder
    scores: Tensor | None = None

    @cached
    def numbers(self) -> Tensor:
        """(N, A, 4) what the box outputs say, in float32 or better, differentiable."""
        return self.coder.box_layout.numbers(promote(self.deltas))

    @cached
    def boxes(self) -> Tensor:
        """(N, A, 4) decoded boxes in float32 or better, differentiable, computed on first use."""
        return self.coder.decode(self.numbers, self.anchors.boxes)


@dataclass(frozen=True)
class Matches:
    """What each anchor shall say.

    labels: (N, A) int64, a class, BACKGROUND or IGNORE.
    boxes: (N, A, 4), the object's box; where an anchor has none, the anchor itself, so that all
        arithmetic stays finite.
    objects: (N, A) int64, index into M of the anchor's object; -1 where it has none.
    quality: (N, A) float32 or better in [0, 1], how good the matcher finds a positive, 0 elsewhere;
        None from a matcher that does not say.
    """

    labels: Tensor
    boxes: Tensor
    objects: Tensor
    anchors: Anchors
    targets: Targets
    quality: Tensor | None = None

    @cached
    def foreground(self) -> Tensor:
        """(N, A) bool: the anchor has an object."""
        return self.labels >= 0

    @cached
    def background(self) -> Tensor:
        """(N, A) bool: the anchor has none."""
        return self.labels == BACKGROUND

    @cached
    def valid(self) -> Tensor:
        """(N, A) bool: the anchor counts."""
        return self.labels != IGNORE

    def one_hot(self, num_classes: int) -> Tensor:
        """(N, A, K) bool, true at the class of a foreground anchor and nowhere else."""
        classes = torch.arange(num_classes, device=self.labels.device)
        return self.labels[..., None] == classes


@dataclass(frozen=True)
class DetectionTensors:
    """What post-processing finds in one image, sorted by falling score, on the model's device.

    `detector.inference.detections.Detections` is what a caller gets of it, in numpy.

    boxes: (S, 4) in pixels of the original file. scores: (S,) probabilities.
    labels: (S,) int64 in [0, K).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
